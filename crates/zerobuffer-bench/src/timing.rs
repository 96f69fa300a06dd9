//! How long one operation takes: batches, and histograms of single ones.

use crate::stats::Summary;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Nanoseconds of one operation; `batch` does as many as it is told.
///
/// The operations run in batches of about a millisecond, and the median of the batches counts: what
/// the machine does elsewhere for a few milliseconds does not.
pub(crate) fn per_operation(
    budget: Duration,
    mut batch: impl FnMut(u64) -> Result<()>,
) -> Result<f64> {
    let length = (budget / 20).min(Duration::from_millis(1));
    let warm = Instant::now();
    let mut count = 1;
    // Warm up for a while, and on the way find how many operations fill a batch.
    loop {
        let start = Instant::now();
        batch(count)?;
        if start.elapsed() < length {
            count *= 2;
        } else if warm.elapsed() >= budget / 5 {
            break;
        }
    }
    let mut batches = Vec::new();
    let first = Instant::now();
    while batches.is_empty() || first.elapsed() < budget {
        let start = Instant::now();
        batch(count)?;
        batches.push(start.elapsed().as_nanos() as f64 / count as f64);
    }
    let summary = Summary::of(&batches).context("no batch was run")?;
    Ok(summary.median)
}

/// Latencies in nanoseconds. Each has two readings of the clock in it, so they are not for
/// comparison with [`per_operation`].
pub(crate) fn histogram(
    budget: Duration,
    mut operation: impl FnMut() -> Result<()>,
) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let warm = Instant::now();
    while warm.elapsed() < budget / 10 {
        operation()?;
    }
    let first = Instant::now();
    let mut start = first;
    loop {
        operation()?;
        let end = Instant::now();
        histogram.saturating_record((end - start).as_nanos() as u64);
        if end - first > budget {
            return Ok(histogram);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_operation_is_found() {
        let pause = Duration::from_micros(200);
        let ns = per_operation(Duration::from_millis(20), |count| {
            (0..count).for_each(|_| std::thread::sleep(pause));
            Ok(())
        });
        let ns = ns.unwrap();
        assert!(ns >= 200_000.0, "{ns}");
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let result = per_operation(Duration::from_millis(20), |_| anyhow::bail!("broken"));
        assert_eq!(result.unwrap_err().to_string(), "broken");
    }

    #[test]
    fn every_operation_is_in_the_histogram() {
        let mut count = 0;
        let histogram = histogram(Duration::from_millis(10), || {
            count += 1;
            std::thread::sleep(Duration::from_micros(100));
            Ok(())
        });
        let histogram = histogram.unwrap();
        assert!((1..=count).contains(&histogram.len()));
        assert!(histogram.min() >= 100_000);
    }
}
