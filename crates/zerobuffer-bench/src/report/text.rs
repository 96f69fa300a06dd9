//! The report as tables for a terminal.

use super::data::{Chart, Distribution, Figure, Report};
use super::quantity::short;
use crate::machine::Machine;
use crate::stats::Summary;
use comfy_table::{CellAlignment, LineStyle, Row, Table, TableStyle};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cpus, kernel, seats } = &self.machine;
        write!(f, "{cpu}, {cpus} CPUs, Linux {kernel}, commit {}", self.commit)?;
        match seats {
            Some(seats) => {
                writeln!(f, ", client on CPU {}, server on CPU {}", seats.client, seats.server)?;
            }
            None => writeln!(f, "\nOnly one CPU: round trips between two CPUs are not measured.")?,
        }
        if !self.figures.is_empty() {
            writeln!(f, "{}", figure_table(&self.figures))?;
        }
        if !self.latencies.is_empty() {
            writeln!(f, "{}", latency_table(&self.latencies))?;
        }
        for chart in &self.charts {
            writeln!(f, "{} {}, {}\n{}", chart.id, chart.name, chart.unit, chart_table(chart))?;
        }
        if !self.not_measured.is_empty() {
            writeln!(f, "Not measured:")?;
        }
        self.not_measured.iter().try_for_each(|left| writeln!(f, "  {}: {}", left.id, left.reason))
    }
}

fn figure_table(figures: &[Figure]) -> Table {
    let header =
        ["", "figure", "how", "median", "min … max", "divided by", "ratio", "min … max", "target"];
    let rows = figures.iter().flat_map(Figure::rows).map(|row| {
        let Summary { min, median, max } = row.value;
        let verdict = row
            .verdict()
            .map(|(target, met)| format!("{target} {}", if met { "met" } else { "missed" }));
        [
            row.id.to_owned(),
            row.name.to_owned(),
            row.conditions,
            format!("{} {}", short(median), row.unit),
            format!("{} … {}", short(min), short(max)),
            row.limit_name.to_owned(),
            row.ratio.map(|ratio| format!("{:.3}", ratio.median)).unwrap_or_default(),
            row.ratio
                .map(|ratio| format!("{:.3} … {:.3}", ratio.min, ratio.max))
                .unwrap_or_default(),
            verdict.unwrap_or_default(),
        ]
    });
    table(&header, rows, &[3, 4, 6, 7])
}

/// A column for each point.
fn chart_table(chart: &Chart) -> Table {
    let longest = chart.series.iter().max_by_key(|series| series.points.len());
    let points = longest.map(|series| series.points.as_slice()).unwrap_or_default();
    let mut header = vec![chart.x.clone().unwrap_or_default()];
    header.extend(points.iter().map(|point| match chart.x {
        Some(_) => short(point.x),
        None => "median".to_owned(),
    }));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = chart.series.iter().map(|series| {
        let mut row = vec![series.name.clone()];
        row.extend(series.points.iter().map(|point| short(point.value.median)));
        row.resize(header.len(), String::new());
        row
    });
    table(&header, rows, &(1..header.len()).collect::<Vec<_>>())
}

fn latency_table(latencies: &[Distribution]) -> Table {
    let header = ["", "latency, clock included", "p50", "p99", "p99.9", "max", "calls"];
    let rows = latencies.iter().map(|one| {
        let ns = |value: u64| format!("{} ns", short(value as f64));
        [
            one.id.clone(),
            one.name.clone(),
            ns(one.p50),
            ns(one.p99),
            ns(one.p99_9),
            ns(one.max),
            short(one.count as f64),
        ]
    });
    table(&header, rows, &[2, 3, 4, 5, 6])
}

fn table<R: Into<Row>>(header: &[&str], rows: impl Iterator<Item = R>, numbers: &[usize]) -> Table {
    let mut table = Table::new();
    let rule = || LineStyle::none().fill('─').junction('─').left('─').right('─');
    let style = TableStyle::new();
    table.load_style(style.top_border(rule()).header_separator(rule()).bottom_border(rule()));
    table.set_header(header).add_rows(rows);
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use crate::report::data::tests::report;

    #[test]
    fn the_table_says_what_was_met_and_what_was_not_measured() {
        let met = report(&[70.0], &[50.0]).to_string();
        assert!(met.contains("≤ 1.5 met") && met.contains("1.400"), "{met}");
        assert!(met.contains("Only one CPU") && met.contains("P7: needs two CPUs"), "{met}");
        assert!(report(&[80.0], &[50.0]).to_string().contains("≤ 1.5 missed"));
    }
}
