//! What is measured, against what, and how good it has to be.

mod channel;
mod growth;
mod languages;
mod limits;
mod others;

use crate::plan::Plan;
use anyhow::Result;

/// Everything, or only what the user named.
pub(crate) fn plan(only: &[String]) -> Result<Plan> {
    let figures = [
        limits::figures(),
        channel::targets(),
        others::figures(),
        growth::figures(),
        languages::figures(),
        channel::extras(),
    ];
    let mut charts = others::charts();
    charts.push(languages::chart());
    charts.extend(growth::charts());
    Plan {
        figures: figures.into_iter().flatten().collect(),
        latencies: others::latencies(),
        charts,
    }
    .only(only)
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
