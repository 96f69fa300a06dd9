//! Numbers as people read them.

/// A number with its unit, as short as it can be read.
pub(super) fn quantity(value: f64, unit: &str) -> String {
    let steps: &[(f64, &str)] = match unit {
        "ns" => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        "bytes" => &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        "GB/s" => &[(1.0, "GB/s")],
        "requests/s" | "frames/s" => &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
        _ => &[(1.0, "")],
    };
    let smallest = steps.last().copied().unwrap_or((1.0, ""));
    let found = steps.iter().copied().find(|(step, _)| value >= *step * 0.9995);
    let (step, name) = found.unwrap_or(smallest);
    let value = value / step;
    let digits = if value >= 99.5 || (value - value.round()).abs() < 0.005 { 0 } else { 1 };
    let suffix = if unit == "%" { "%" } else { name };
    format!("{value:.digits$} {suffix}").trim_end().to_owned()
}

/// Three digits or more, thousands apart: `97.3`, `1 284`, `0.501`.
pub(super) fn short(value: f64) -> String {
    if value < 1.0 {
        return format!("{value:.3}");
    }
    if value < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_the_unit_that_fits() {
        let texts = [(97.3, "ns"), (46_000.0, "ns"), (6_220_800.0, "bytes"), (8e6, "requests/s")];
        let texts = texts.map(|(value, unit)| quantity(value, unit));
        assert_eq!(texts, ["97.3 ns", "46 µs", "5.9 MiB", "8 M/s"]);
    }

    #[test]
    fn numbers_are_short_and_readable() {
        let texts = [0.5006, 97.345, 1284.4, 12_450_176.0].map(short);
        assert_eq!(texts, ["0.501", "97.3", "1 284", "12 450 176"]);
    }
}
