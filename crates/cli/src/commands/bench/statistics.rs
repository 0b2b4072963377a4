//! What is said of repeated measurements.

/// A sample's median and ends. The median, because a disturbance makes a run slower and never faster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of the samples; `None` if there are none.
    pub fn of(samples: &[f64]) -> Option<Spread> {
        let sorted = sorted(samples);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Spread { median: low.midpoint(high), min, max })
    }
}

/// The least sample that at least `percent` of a hundred samples do not exceed (nearest rank); `None` of none.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * samples.len() as f64).ceil() as usize;
    sorted(samples).get(rank.max(1) - 1).copied()
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |samples: &[f64]| Spread::of(samples).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some((2.0, 1.0, 9.0)));
        assert_eq!(of(&[9.0, 1.0, 2.0, 4.0]), Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (percent, expected) in [(0.0, 1.0), (50.0, 50.0), (99.0, 99.0), (99.1, 100.0), (100.0, 100.0)] {
            assert_eq!(percentile(&hundred, percent), Some(expected), "{percent}");
        }
        assert_eq!(percentile(&[3.0, 5.0], 50.0), Some(3.0));
        assert_eq!(percentile(&[3.0, 5.0], 99.0), Some(5.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
