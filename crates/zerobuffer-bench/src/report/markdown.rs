//! The table of the targets, for a document in Markdown.

use super::data::{Distribution, Figure, Report, Row};
use super::quantity::quantity;
use crate::stats::Summary;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

const START: &str = "<!-- measured";
const END: &str = "<!-- end -->";

impl Report {
    /// Replaces what is between the marks of this file. The first mark may name the figures that the
    /// table is to have: `<!-- measured P1 P3 -->`.
    pub(crate) fn update_markdown(&self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        let updated = self.updated(&text).with_context(|| path.display().to_string())?;
        std::fs::write(path, updated).with_context(|| format!("write {}", path.display()))
    }

    fn updated(&self, text: &str) -> Result<String> {
        let marks = "the marks `<!-- measured -->` and `<!-- end -->` are needed, in this order";
        let (before, rest) = text.split_once(START).context(marks)?;
        let (ids, rest) = rest.split_once("-->").context(marks)?;
        let (_, after) = rest.split_once(END).context(marks)?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        Ok(format!("{before}{START}{}-->\n{}{END}{after}", spaced(&ids), self.markdown(&ids)?))
    }

    fn markdown(&self, ids: &[&str]) -> Result<String> {
        let mut text = format!("{}\n\n", self.provenance());
        text.push_str("| | figure | how | divided by | ratio: median (min … max) | target |\n");
        text.push_str("|---|---|---|---|---|---|\n");
        let wanted = |figure: &&Figure| ids.is_empty() || ids.contains(&figure.id.as_str());
        for figure in self.figures.iter().filter(wanted) {
            figure.rows().iter().try_for_each(|line| writeln!(text, "{}", row(line)))?;
        }
        text.push_str(&self.latency_table(ids)?);
        let left = self
            .not_measured
            .iter()
            .filter(|left| ids.is_empty() || ids.contains(&left.id.as_str()));
        let left: Vec<_> = left.map(|left| format!("* {}: {}", left.id, left.reason)).collect();
        if !left.is_empty() {
            write!(text, "\nNot measured in that run:\n\n{}\n", left.join("\n"))?;
        }
        Ok(text)
    }

    /// What single operations take, with the clock's two readings in it.
    fn latency_table(&self, ids: &[&str]) -> Result<String> {
        let wanted = |one: &&Distribution| ids.is_empty() || ids.contains(&one.id.as_str());
        let mut text = String::new();
        for one in self.latencies.iter().filter(wanted) {
            if text.is_empty() {
                text.push_str("\n| | how long it took, clock included | half | 90 % | 99 % | longest | of so many |\n");
                text.push_str("|---|---|---|---|---|---|---|\n");
            }
            writeln!(text, "{}", latency_row(one))?;
        }
        Ok(text)
    }
}

fn latency_row(one: &Distribution) -> String {
    let ns = |value: u64| quantity(value as f64, "ns");
    let Distribution { id, name, p50, p90, p99, max, count, .. } = one;
    let [p50, p90, p99, max] = [*p50, *p90, *p99, *max].map(ns);
    format!("| {id} | {name} | {p50} | {p90} | {p99} | {max} | {count} |")
}

fn spaced(ids: &[&str]) -> String {
    ids.iter().fold(" ".to_owned(), |text, id| format!("{text}{id} "))
}

fn row(row: &Row<'_>) -> String {
    let value = quantity(row.value.median, row.unit);
    let ratio =
        row.ratio.map(|Summary { min, median, max }| format!("{median:.2} ({min:.2} … {max:.2})"));
    let target = row
        .verdict()
        .map(|(target, met)| format!("{target}{}", if met { "" } else { ", **missed**" }));
    format!(
        "| {} | {}: {value} | {} | {} | {} | {} |",
        row.id,
        row.name,
        row.conditions,
        row.limit_name,
        ratio.unwrap_or_default(),
        target.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use crate::report::data::tests::report;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let report = report(&[100.0], &[50.0]);
        let text = "before\n<!-- measured P1 -->\nold\n<!-- end -->\nafter\n";
        let updated = report.updated(text).unwrap();
        assert!(updated.starts_with("before\n<!-- measured P1 -->\n"), "{updated}");
        assert!(updated.ends_with("<!-- end -->\nafter\n") && !updated.contains("old"));
        assert!(updated.contains("| P1 |") && updated.contains("2.00 (2.00 … 2.00)"));
        assert_eq!(report.updated(&updated).unwrap(), updated);
    }

    #[test]
    fn a_table_of_everything_has_the_latencies() {
        let updated = report(&[100.0], &[50.0]).updated("<!-- measured --><!-- end -->").unwrap();
        assert!(updated.contains("| D1 | a latency | 500 ns | 900 ns | 990 ns |"), "{updated}");
    }

    #[test]
    fn a_file_without_marks_is_left_alone() {
        let error = report(&[100.0], &[50.0]).updated("nothing here").unwrap_err();
        assert!(error.to_string().contains("<!-- measured -->"));
    }
}
