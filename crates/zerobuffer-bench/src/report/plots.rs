//! The plots of the page. Lines carry their names at their ends instead of a legend, and titles say
//! what is to be seen.

use super::data::{Chart, Distribution, Report, Series};
use super::quantity::quantity;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// One picture of the page.
pub(super) struct Picture {
    /// The name of its file, without an ending.
    pub(super) file: &'static str,
    pub(super) title: String,
    pub(super) svg: String,
}

const SIZE: (u32, u32) = (940, 540);
const BLACK: RGBColor = RGBColor(34, 34, 34);
const GREY: RGBColor = RGBColor(110, 110, 110);
const LINE: RGBColor = RGBColor(225, 225, 225);
/// Room for labels: left, right, top, bottom.
const MARGIN: (i32, i32, i32, i32) = (86, 210, 66, 56);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Point = (i32, i32);

/// All pictures for which there are figures.
pub(super) fn all(report: &Report) -> Result<Vec<Picture>> {
    let chart = |id: &str| report.charts.iter().find(|chart| chart.id == id && !chart.is_empty());
    let mut pictures = Vec::new();
    if let Some(chart) = chart("C1") {
        pictures.push(lines("round-trip", size_title(chart), "size of the message", chart)?);
    }
    // Those of deaths are another thing, of few values.
    let is_round_trip = |one: &&Distribution| one.id.starts_with('D');
    let round_trips: Vec<_> = report.latencies.iter().filter(is_round_trip).collect();
    if !round_trips.is_empty() {
        pictures.push(latencies(&round_trips)?);
    }
    if let Some(chart) = chart("C2") {
        let title = "A 1080p picture is filled here, inverted by another process, and read here";
        pictures.push(bars("picture", title, chart)?);
    }
    if let Some(chart) = chart("C3") {
        let title = "Memory of both processes while they exchange 1080p pictures";
        pictures.push(bars("memory", title, chart)?);
    }
    if let Some(chart) = chart("C4") {
        pictures.push(lines("in-flight", flight_title(chart), "requests in flight", chart)?);
    }
    if let Some(chart) = chart("C5") {
        let title = "Between two Python programs: a round trip of eight bytes";
        pictures.push(bars("python", title, chart)?);
    }
    let growth: Vec<_> = ["G1", "G2", "G3"].into_iter().filter_map(chart).collect();
    if !growth.is_empty() {
        pictures.push(panels(
            "channels",
            "From 1 to 1,000 channels between two processes",
            &growth,
        )?);
    }
    if let Some(chart) = chart("S1") {
        let title = "Several clients at the same time: calls of 8 bytes, all together";
        pictures.push(lines("clients", title.to_owned(), "clients", chart)?);
    }
    if let Some(chart) = chart("S2") {
        let title = "Several clients at the same time: the slowest one's part of its fair share";
        pictures.push(lines("fairness", title.to_owned(), "clients", chart)?);
    }
    Ok(pictures)
}

fn size_title(chart: &Chart) -> String {
    let ends = || {
        let points = &chart.series.first()?.points;
        let (first, last) = (points.first()?, points.last()?);
        Some(format!(
            "In place, {} take {} and {} take {}; copies cost by the byte",
            quantity(first.x, "bytes"),
            quantity(first.value.median, "ns"),
            quantity(last.x, "bytes"),
            quantity(last.value.median, "ns"),
        ))
    };
    ends().unwrap_or_else(|| chart.name.clone())
}

fn flight_title(chart: &Chart) -> String {
    let best = |series: &Series| {
        let best = series.points.iter().map(|point| point.value.median).fold(0.0, f64::max);
        quantity(best, &chart.unit)
    };
    let named = |name| chart.series.iter().find(|series| series.name == name).map(best);
    let first = chart.series.first().map(best).unwrap_or_default();
    let other = named("iceoryx2").map(|best| format!(", and {best} of iceoryx2"));
    format!("Messages of 64 bytes: up to {first} in place{}", other.unwrap_or_default())
}

/// The colour of a system is the same in all pictures, and distinguishable for the colour-blind.
fn colour(name: &str) -> RGBColor {
    match name {
        "in place" | "in place, spinning" | "service" => RGBColor(213, 94, 0),
        "in place, sleeping" | "service, sleeping" => RGBColor(230, 159, 0),
        "a channel each" => RGBColor(0, 114, 178),
        "a channel each, sleeping" => RGBColor(120, 170, 220),
        "two buffers" => RGBColor(0, 114, 178),
        "iceoryx2" => RGBColor(0, 158, 115),
        "iceoryx2, nothing copied" => RGBColor(100, 200, 170),
        "Unix socket" => RGBColor(86, 180, 233),
        "pipes" => RGBColor(204, 121, 167),
        "ZeroMQ" => RGBColor(110, 80, 160),
        _ => RGBColor(90, 90, 90),
    }
}

/// A line with its name.
struct Curve {
    name: String,
    points: Vec<Spread>,
}

/// A point with its smallest and largest value.
#[derive(Clone, Copy)]
struct Spread {
    x: f64,
    y: f64,
    min: f64,
    max: f64,
}

fn curves(chart: &Chart) -> Vec<Curve> {
    let curve = |series: &Series| Curve {
        name: series.name.clone(),
        points: series
            .points
            .iter()
            .map(|point| {
                let value = point.value;
                Spread { x: point.x, y: value.median, min: value.min, max: value.max }
            })
            .collect(),
    };
    chart.series.iter().filter(|series| !series.points.is_empty()).map(curve).collect()
}

fn lines(file: &'static str, title: String, x_name: &str, chart: &Chart) -> Result<Picture> {
    let curves = curves(chart);
    let x_unit = chart.x.as_deref().unwrap_or_default();
    let ticks: Vec<_> = longest(&curves).iter().map(|x| (*x, quantity(*x, x_unit))).collect();
    let svg = draw(SIZE, |area| {
        heading(
            area,
            &title,
            "median of all rounds; thin lines from the fastest to the slowest round",
        )?;
        plot(area, &curves, &ticks, x_name, &chart.unit)
    })?;
    Ok(Picture { file, title, svg })
}

fn latencies(distributions: &[&Distribution]) -> Result<Picture> {
    let curve = |one: &&Distribution| Curve {
        name: one.name.clone(),
        points: one
            .quantiles
            .iter()
            .map(|(slower, ns)| {
                let y = *ns as f64;
                Spread { x: 1.0 / slower, y, min: y, max: y }
            })
            .collect(),
    };
    let curves: Vec<_> = distributions.iter().map(curve).collect();
    let percent = ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"];
    let ticks = [2.0, 1e1, 1e2, 1e3, 1e4].into_iter().zip(percent.map(str::to_owned));
    let ticks: Vec<_> = ticks.collect();
    let first = distributions.first().map(|one| (one.p50, one.p99));
    let title = match first {
        Some((half, most)) => format!(
            "Round trips of 8 bytes in place: half take at most {}, 99 % at most {}",
            quantity(half as f64, "ns"),
            quantity(most as f64, "ns")
        ),
        None => "How long single round trips of 8 bytes take".to_owned(),
    };
    let svg = draw(SIZE, |area| {
        heading(
            area,
            &title,
            "every call reads the clock twice; what interrupts the machine is in it, too",
        )?;
        plot(area, &curves, &ticks, "so many of the calls are faster", "ns")
    })?;
    Ok(Picture { file: "latency", title, svg })
}

fn longest(curves: &[Curve]) -> Vec<f64> {
    let longest = curves.iter().max_by_key(|curve| curve.points.len());
    longest.map(|curve| curve.points.iter().map(|point| point.x).collect()).unwrap_or_default()
}

/// Draws one picture, and returns its SVG.
fn draw(size: (u32, u32), body: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(drawing)?;
        body(&area)?;
        area.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("draw a plot: {error}")
}

fn text(
    area: &Area<'_>,
    text: &str,
    at: Point,
    size: u32,
    colour: RGBColor,
    pos: (HPos, VPos),
) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&colour);
    let style = style.pos(Pos::new(pos.0, pos.1));
    area.draw(&Text::new(text, at, style)).map_err(drawing)
}

fn heading(area: &Area<'_>, title: &str, note: &str) -> Result<()> {
    text(area, title, (16, 14), 19, BLACK, (HPos::Left, VPos::Top))?;
    text(area, note, (16, 40), 13, GREY, (HPos::Left, VPos::Top))
}

fn stroke(area: &Area<'_>, points: Vec<Point>, colour: RGBColor, width: u32) -> Result<()> {
    area.draw(&PathElement::new(points, colour.stroke_width(width))).map_err(drawing)
}

/// From values to pixels, both axes logarithmic.
struct Scale {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Scale {
    fn new(size: (u32, u32), curves: &[Curve], ticks: &[(f64, String)]) -> Self {
        let all = || curves.iter().flat_map(|curve| &curve.points);
        let low = all().map(|point| point.min).fold(f64::INFINITY, f64::min).max(1e-3);
        let high = all().map(|point| point.max).fold(low, f64::max);
        let x =
            (ticks.first().map_or(1.0, |tick| tick.0), ticks.last().map_or(10.0, |tick| tick.0));
        let (left, right, top, bottom) = MARGIN;
        Self {
            left: f64::from(left),
            right: f64::from(size.0 as i32 - right),
            top: f64::from(top),
            bottom: f64::from(size.1 as i32 - bottom),
            x: (x.0.log10(), x.1.log10()),
            y: ((low * 0.8).log10(), (high * 1.2).log10()),
        }
    }

    fn at_x(&self, x: f64) -> i32 {
        let share = (x.log10() - self.x.0) / (self.x.1 - self.x.0).max(1e-9);
        (self.left + share * (self.right - self.left)).round() as i32
    }

    fn at_y(&self, y: f64) -> i32 {
        let share = (y.max(1e-3).log10() - self.y.0) / (self.y.1 - self.y.0);
        (self.bottom - share * (self.bottom - self.top)).round() as i32
    }

    /// Where lines go: powers of ten, or of 1024 for bytes with 32 and so on between them.
    fn decades(&self, unit: &str) -> impl Iterator<Item = f64> + use<> {
        let base: f64 = if unit == "bytes" { 32.0 } else { 10.0 };
        let power = |y: f64| y / base.log10();
        (power(self.y.0).ceil() as i32..=power(self.y.1).floor() as i32)
            .map(move |power| base.powi(power))
    }
}

fn plot(
    area: &Area<'_>,
    curves: &[Curve],
    ticks: &[(f64, String)],
    x_name: &str,
    unit: &str,
) -> Result<()> {
    let size = area.dim_in_pixel();
    let scale = Scale::new(size, curves, ticks);
    grid(area, &scale, ticks, unit)?;
    let middle = ((scale.left + scale.right) / 2.0) as i32;
    let below = (middle, size.1 as i32 - 12);
    text(area, x_name, below, 14, GREY, (HPos::Center, VPos::Bottom))?;
    // The first one on top.
    for curve in curves.iter().rev() {
        let colour = colour(&curve.name);
        let is_ours = ["in place", "service"].iter().any(|name| curve.name.starts_with(name));
        let width = if is_ours { 3 } else { 2 };
        for point in curve.points.iter().filter(|point| point.min < point.max) {
            let x = scale.at_x(point.x);
            let spread = vec![(x, scale.at_y(point.min)), (x, scale.at_y(point.max))];
            stroke(area, spread, colour, 1)?;
        }
        let points = curve.points.iter().map(|point| (scale.at_x(point.x), scale.at_y(point.y)));
        let points: Vec<_> = points.collect();
        if points.len() <= 12 {
            for point in &points {
                let dot = Circle::new(*point, width as i32 + 1, colour.filled());
                area.draw(&dot).map_err(drawing)?;
            }
        }
        stroke(area, points, colour, width)?;
    }
    names(area, &scale, curves)
}

fn grid(area: &Area<'_>, scale: &Scale, ticks: &[(f64, String)], unit: &str) -> Result<()> {
    let (left, right) = (scale.left as i32, scale.right as i32);
    let (top, bottom) = (scale.top as i32, scale.bottom as i32);
    for value in scale.decades(unit) {
        let y = scale.at_y(value);
        stroke(area, vec![(left, y), (right, y)], LINE, 1)?;
        let name = quantity(value, unit);
        text(area, &name, (left - 8, y), 13, GREY, (HPos::Right, VPos::Center))?;
    }
    for (value, name) in ticks {
        let x = scale.at_x(*value);
        stroke(area, vec![(x, top), (x, bottom)], LINE, 1)?;
        text(area, name, (x, bottom + 8), 13, GREY, (HPos::Center, VPos::Top))?;
    }
    stroke(area, vec![(left, top), (left, bottom), (right, bottom)], GREY, 1)
}

/// The name of each line at its end, moved apart where lines end together.
fn names(area: &Area<'_>, scale: &Scale, curves: &[Curve]) -> Result<()> {
    const HEIGHT: i32 = 19;
    let end =
        |curve: &Curve| curve.points.last().map(|point| (scale.at_x(point.x), scale.at_y(point.y)));
    let mut ends: Vec<_> =
        curves.iter().filter_map(|curve| Some((end(curve)?, curve.name.as_str()))).collect();
    ends.sort_by_key(|((_, y), _)| *y);
    let wanted: Vec<_> = ends.iter().map(|((_, y), _)| *y).collect();
    let x = scale.right as i32 + 26;
    for (((end_x, end_y), name), y) in ends.into_iter().zip(apart(&wanted, HEIGHT)) {
        let colour = colour(name);
        stroke(area, vec![(end_x + 5, end_y), (x - 12, y), (x - 4, y)], colour, 1)?;
        text(area, name, (x, y), 14, colour, (HPos::Left, VPos::Center))?;
    }
    Ok(())
}

/// Sorted positions, moved as little as needed to be `distance` apart.
fn apart(wanted: &[i32], distance: i32) -> Vec<i32> {
    let mut placed: Vec<i32> = wanted.to_vec();
    for _ in 0..100 {
        for index in 1..placed.len() {
            let missing = distance - (placed[index] - placed[index - 1]);
            if missing > 0 {
                placed[index - 1] -= (missing + 1) / 2;
                placed[index] += missing / 2;
            }
        }
    }
    placed
}

fn bars(file: &'static str, title: &str, chart: &Chart) -> Result<Picture> {
    const ROW: i32 = 40;
    let curves = curves(chart);
    let values: Vec<(&str, Spread)> = curves
        .iter()
        .filter_map(|curve| Some((curve.name.as_str(), *curve.points.first()?)))
        .collect();
    let height = (MARGIN.2 + ROW * values.len() as i32 + 20) as u32;
    let svg = draw((SIZE.0, height), |area| {
        heading(area, title, "median of all rounds, and how many times as much as the first")?;
        let most = values.iter().map(|(_, value)| value.y).fold(0.0, f64::max);
        let first = values.first().map_or(1.0, |(_, value)| value.y);
        let (left, room) = (200, f64::from(SIZE.0) - 200.0 - 190.0);
        for (index, (name, value)) in values.iter().enumerate() {
            let top = MARGIN.2 + ROW * index as i32 + 6;
            let end = left + (value.y / most.max(1e-9) * room).round() as i32;
            let bar = Rectangle::new(
                [(left, top), (end.max(left + 1), top + ROW - 14)],
                colour(name).filled(),
            );
            area.draw(&bar).map_err(drawing)?;
            let middle = top + (ROW - 14) / 2;
            text(area, name, (left - 10, middle), 14, BLACK, (HPos::Right, VPos::Center))?;
            let times =
                if index == 0 { String::new() } else { format!(" · {:.1} ×", value.y / first) };
            let label = format!("{}{times}", quantity(value.y, &chart.unit));
            text(area, &label, (end + 8, middle), 14, BLACK, (HPos::Left, VPos::Center))?;
        }
        Ok(())
    })?;
    Ok(Picture { file, title: title.to_owned(), svg })
}

/// Small plots side by side.
fn panels(file: &'static str, title: &str, charts: &[&Chart]) -> Result<Picture> {
    let svg = draw((SIZE.0, 360), |area| {
        heading(
            area,
            title,
            "both processes together; straight lines mean that each channel costs the same",
        )?;
        let (_, rest) = area.split_vertically(64);
        for (panel, chart) in rest.split_evenly((1, charts.len())).iter().zip(charts) {
            small(panel, chart)?;
        }
        Ok(())
    })?;
    Ok(Picture { file, title: title.to_owned(), svg })
}

fn small(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let curves = curves(chart);
    let ticks: Vec<_> = longest(&curves).iter().map(|x| (*x, format!("{x}"))).collect();
    let size = area.dim_in_pixel();
    let scale = Scale::new((size.0 + 160, size.1), &curves, &ticks);
    let scale = Scale { top: 34.0, ..scale };
    text(area, &chart.name, (16, 8), 14, BLACK, (HPos::Left, VPos::Top))?;
    grid(area, &scale, &ticks, &chart.unit)?;
    for curve in &curves {
        let points = curve.points.iter().map(|point| (scale.at_x(point.x), scale.at_y(point.y)));
        let points: Vec<_> = points.collect();
        for (at, point) in points.iter().zip(&curve.points) {
            area.draw(&Circle::new(*at, 4, colour("in place").filled())).map_err(drawing)?;
            let label = quantity(point.y, &chart.unit);
            let place = (at.0 + 2, at.1 - 8);
            let side = if at.0 > scale.right as i32 - 20 { HPos::Right } else { HPos::Center };
            text(area, &label, place, 12, BLACK, (side, VPos::Bottom))?;
        }
        stroke(area, points, colour("in place"), 2)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap_and_keep_their_order() {
        let placed = apart(&[100, 101, 103, 300], 19);
        assert!(placed.windows(2).all(|pair| pair[1] - pair[0] >= 18), "{placed:?}");
        assert_eq!(placed[3], 300);
    }
}
