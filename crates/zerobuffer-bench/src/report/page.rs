//! One page with everything, which needs nothing else.

use super::data::{Report, Row};
use super::plots::{self, Picture};
use super::quantity::quantity;
use crate::plan::Distance;
use crate::stats::Summary;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 960px;
  margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; line-height: 1.2 } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; width: 100%; font-size: 0.9em }
td, th { padding: 0.3em 0.6em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
.number { text-align: right; white-space: nowrap }
.met { color: #00695c } .missed { color: #b23c00; font-weight: 600 }
figure { margin: 1.2em 0; border: 1px solid #ddd; overflow-x: auto }
figure svg { width: 100%; min-width: 720px; height: auto; display: block }
figcaption { display: none }
@media (max-width: 640px) {
  figcaption { display: block; position: sticky; left: 0; padding: 0.4em }
  table, tbody, tr, td { display: block; width: auto } th { display: none }
  tr { padding: 0.6em 0; border-bottom: 1px solid #ddd } td { padding: 0; border: 0 }
  td:empty { display: none } td:first-child { font-weight: 600 }
  .number { text-align: left } td[data-name]::before { content: attr(data-name) \": \"; color: #666 }
}
.small { color: #666; font-size: 0.9em }
";

const BETTER: &str = "
<li>One sender and many receivers, or data that nobody answers: iceoryx2's publish-subscribe is made for it.</li>
<li>Another machine, or peers in a language for which there is no binding: a socket, or ZeroMQ.</li>
<li>Small messages now and then: a Unix socket costs about the same as a sleeping channel, and needs no library.</li>
<li>Answers unrelated to their requests, or kept for long: two buffers, since a held answer keeps its slot of the one ring.</li>
";

impl Report {
    /// Writes the page.
    pub(crate) fn write_page(&self, path: &Path) -> Result<()> {
        let page = self.page(&plots::all(self)?)?;
        std::fs::write(path, page).with_context(|| format!("write {}", path.display()))
    }

    /// Writes each plot as a file of its own.
    pub(crate) fn write_plots(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        plots::all(self)?.iter().try_for_each(|Picture { file, svg, .. }| {
            let path = folder.join(format!("{file}.svg"));
            std::fs::write(&path, svg).with_context(|| format!("write {}", path.display()))
        })
    }

    fn page(&self, pictures: &[Picture]) -> Result<String> {
        let mut page = String::new();
        write!(page, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
        write!(page, "<meta name=\"viewport\" content=\"width=device-width\">")?;
        writeln!(page, "<title>How fast zerobuffer is</title><style>{STYLE}</style></head><body>")?;
        writeln!(page, "<h1>How fast zerobuffer is</h1>\n<p>{}</p>", escaped(&self.summary()))?;
        writeln!(page, "<p class=\"small\">{}</p>", escaped(&self.provenance()))?;
        for picture in pictures {
            let title = escaped(&picture.title);
            writeln!(
                page,
                "<figure role=\"img\" aria-label=\"{title}\"><figcaption>{title}</figcaption>{}</figure>",
                picture.svg
            )?;
        }
        writeln!(
            page,
            "<h2>The targets</h2>\n<p>Each figure is divided by its limit in the same round; below is \
             the median of these ratios, with the smallest and largest. <em>near</em> and <em>far</em>: how \
             far the two CPUs were from each other in those rounds; near ones hand a cache line back and \
             forth in {} ns or less.</p>",
            Distance::NEAR_NS
        )?;
        page.push_str(
            "<table><tr><th></th><th>figure</th><th>how</th><th class=\"number\">median</th>\
                       <th>divided by</th><th class=\"number\">ratio</th><th>target</th></tr>\n",
        );
        for figure in &self.figures {
            figure.rows().iter().for_each(|line| page.push_str(&row(line)));
        }
        page.push_str("</table>\n");
        page.push_str(&self.latency_rows());
        if !self.not_measured.is_empty() {
            page.push_str("<h2>Not measured</h2>\n<ul>\n");
            for left in &self.not_measured {
                writeln!(page, "<li>{}: {}</li>", escaped(&left.id), escaped(&left.reason))?;
            }
            page.push_str("</ul>\n");
        }
        writeln!(page, "<h2>Where others are the better choice</h2>\n<ul>{BETTER}</ul>")?;
        page.push_str("</body></html>\n");
        Ok(page)
    }

    fn latency_rows(&self) -> String {
        if self.latencies.is_empty() {
            return String::new();
        }
        let columns = ["half", "90 %", "99 %", "longest", "of so many"];
        let heads = columns.map(|column| format!("<th class=\"number\">{column}</th>")).concat();
        let rows = self.latencies.iter().map(|one| {
            let ns = [one.p50, one.p90, one.p99, one.max].map(|ns| quantity(ns as f64, "ns"));
            let values = ns.into_iter().chain([one.count.to_string()]).zip(columns);
            let cell =
                |(value, name)| format!("<td class=\"number\" data-name=\"{name}\">{value}</td>");
            let values: String = values.map(cell).collect();
            format!(
                "<tr><td>{}</td><td>{}</td>{values}</tr>\n",
                escaped(&one.id),
                escaped(&one.name)
            )
        });
        let rows: String = rows.collect();
        format!(
            "<h2>How long single operations take, clock included</h2>\n\
             <table><tr><th></th><th></th>{heads}</tr>\n{rows}</table>\n"
        )
    }

    fn summary(&self) -> String {
        let find = |id: &str| self.figures.iter().find(|figure| figure.id == id);
        let ratio = |id: &str| find(id)?.ratio;
        let mut parts = Vec::new();
        if let Some(p1) = find("P1") {
            let times =
                p1.rows().iter().map(|row| quantity(row.value.median, "ns")).collect::<Vec<_>>();
            parts.push(format!(
                "A call of 8 bytes to another process and back takes {} (both sides spinning{}).",
                times.join(" or "),
                if times.len() > 1 { ", on CPUs that are near or far" } else { "" },
            ));
        }
        if let Some(times) = ratio("P8") {
            parts.push(format!("iceoryx2 takes {times:.1} times as long."));
        }
        if let Some(times) = ratio("P11") {
            let same = "1 GiB that nobody touches takes as long as 8 bytes";
            parts.push(match times <= 1.3 {
                true => format!("{same} (ratio {times:.2})."),
                false => format!("{same} times {times:.2}."),
            });
        }
        if let Some(times) = ratio("P3") {
            parts.push(format!(
                "Inverting a 1080p picture in the other process costs {times:.2} times what it costs in one process."
            ));
        }
        parts.join(" ")
    }

    /// Where the figures come from.
    pub(super) fn provenance(&self) -> String {
        let machine = &self.machine;
        format!(
            "Measured on {} on {} CPUs of {}, Linux {}, at commit {}, with cargo xtask bench. Times depend \
             on the machine, ratios hardly.",
            self.date,
            machine.cpus,
            machine.cpu,
            machine.kernel,
            self.commit.get(..12).unwrap_or(&self.commit),
        )
    }
}

fn row(row: &Row<'_>) -> String {
    let ratio = row
        .ratio
        .map(|Summary { min, median, max }| format!("<b>{median:.2}</b> ({min:.2} … {max:.2})"));
    let target = row.verdict().map(|(target, met)| {
        let verdict = if met { "met" } else { "missed" };
        format!("<span class=\"{verdict}\">{target} {verdict}</span>")
    });
    format!(
        "<tr><td>{}</td><td>{}</td><td data-name=\"how\">{}</td>\
         <td class=\"number\" data-name=\"median\">{}</td>\
         <td data-name=\"divided by\">{}</td><td class=\"number\" data-name=\"ratio\">{}</td>\
         <td data-name=\"target\">{}</td></tr>\n",
        escaped(row.id),
        escaped(row.name),
        escaped(&row.conditions),
        quantity(row.value.median, row.unit),
        escaped(row.limit_name),
        ratio.unwrap_or_default(),
        target.unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
