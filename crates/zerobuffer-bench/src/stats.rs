//! Smallest, middle and largest of a few values.

use serde::{Deserialize, Serialize};

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { min, median, max })
    }
}

/// Each value divided by the limit of its own round.
pub(crate) fn ratios(values: &[f64], limits: &[f64]) -> Vec<f64> {
    values.iter().zip(limits).map(|(value, limit)| value / limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        let summary = Summary::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!(summary, Summary { min: 1.0, median: 3.0, max: 5.0 });
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of(&[7.0]).unwrap(), Summary { min: 7.0, median: 7.0, max: 7.0 });
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_round_is_divided_by_its_own_limit() {
        // The machine was eight times slower in the second round: the ratio does not move.
        let ratios = ratios(&[100.0, 800.0], &[50.0, 400.0]);
        assert_eq!(ratios, [2.0, 2.0]);
    }
}
