//! What is measured, against what, and how good it has to be.

mod buffers;
mod channel;
mod growth;
mod languages;
mod limits;
mod others;
mod services;

use crate::plan::{Plan, SharedPoint};
use anyhow::Result;

/// Everything, or only what the user named.
pub(crate) fn plan(only: &[String]) -> Result<Plan> {
    let figures = [
        limits::figures(),
        channel::targets(),
        channel::shared(),
        others::figures(),
        services::figures(),
        growth::figures(),
        buffers::figures(),
        languages::figures(),
        languages::csharp(),
        channel::extras(),
    ];
    let mut charts = others::charts();
    charts.push(languages::chart());
    charts.extend(growth::charts());
    charts.extend(services::charts());
    let figures = figures.into_iter().flatten().collect();
    let latencies = [others::latencies(), services::latencies()].into_iter().flatten().collect();
    Plan { figures, latencies, charts, shared: shared() }.only(only)
}

/// Points of charts that are figures as well.
fn shared() -> Vec<SharedPoint> {
    [
        ("C1", "iceoryx2", 8.0, "P8"),
        ("C1", "Unix socket", 8.0, "P10"),
        ("C2", "in place, spinning", 0.0, "P3"),
        ("C2", "two buffers", 0.0, "P4"),
        ("C4", "in place, spinning", 64.0, "P9"),
        ("C5", "in place", 0.0, "P12-python"),
        ("G3", "in place", 1000.0, "P11-idle"),
    ]
    .map(|(chart, series, x, figure)| SharedPoint { chart, series, x, figure })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ids(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
        plan(&only).unwrap().figures.iter().map(|figure| figure.id).collect()
    }

    #[test]
    fn a_full_run_has_each_figure_once_and_every_target() {
        let plan = plan(&[]).unwrap();
        let ids = plan.ids();
        let unique: HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let languages = ["P12-cpp", "P12-python", "P12-csharp"].map(str::to_owned);
        for id in (1..=11).map(|n| format!("P{n}")).chain(languages) {
            let figure = plan.figures.iter().find(|figure| figure.id == id).expect(&id);
            assert!(figure.target.is_some() && figure.limit.is_some(), "{id}");
        }
    }

    /// Two rows with one name are two numbers for one thing, and a reader knows no short forms.
    #[test]
    fn each_row_says_what_was_done_in_words_that_no_other_row_has() {
        let plan = plan(&[]).unwrap();
        let names: HashSet<_> = plan.figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), plan.figures.len());
        let ids = plan.ids();
        for limit in plan.figures.iter().filter_map(|figure| figure.limit.as_ref()) {
            assert!(!ids.contains(&limit.name), "{} is a short form", limit.name);
        }
    }

    #[test]
    fn a_shared_point_is_a_point_of_a_chart_and_a_figure_in_the_same_unit() {
        let plan = plan(&[]).unwrap();
        for SharedPoint { chart, series, x, figure } in &plan.shared {
            let chart = plan.charts.iter().find(|one| one.id == *chart).expect(chart);
            let series = chart.series.iter().find(|one| one.name == *series).expect(series);
            assert!(series.points.iter().any(|point| point.0 == *x), "{figure}");
            let figure = plan.figures.iter().find(|one| one.id == *figure).expect(figure);
            assert_eq!(figure.unit, chart.unit, "{}", figure.id);
        }
    }

    #[test]
    fn a_figure_that_shares_its_values_comes_after_the_one_that_has_them() {
        let plan = plan(&[]).unwrap();
        for (index, figure) in plan.figures.iter().enumerate() {
            let Some(id) = figure.same_as else { continue };
            let same = plan.figures[..index].iter().find(|other| other.id == id).expect(id);
            assert_eq!((same.conditions, same.unit), (figure.conditions, figure.unit), "{id}");
        }
    }

    #[test]
    fn named_figures_are_measured_alone() {
        assert_eq!(ids(&["p3", "P1"]), ["P1", "P3"]);
        assert!(plan(&["P3".to_owned()]).unwrap().charts.is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = plan(&["P99".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("P99") && error.contains("P7") && error.contains("L4-1MiB"));
    }
}
