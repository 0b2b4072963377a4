//! What part of the learning rate each step gets.

use serde::{Deserialize, Serialize};

/// The shape after warming up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): level, then down in a straight line.
    #[default]
    Wsd,
    /// Half a cosine.
    Cosine,
}

/// How the learning rate changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The shape after warming up.
    pub shape: Shape,
    /// Number of steps.
    pub steps: u64,
    /// Steps in which it grows from nothing, at most half of all.
    pub warmup: u64,
    /// Part of the steps, at the end, in which a WSD schedule falls.
    pub decay: f64,
    /// Part of the learning rate that is left at the end.
    pub end: f64,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { shape: Shape::default(), steps: 1000, warmup: 50, decay: 0.2, end: 0.05 }
    }
}

impl Schedule {
    /// The part for step number `step`, from 0 on.
    pub fn share(&self, step: u64) -> f64 {
        let warmup = self.warmup.min(self.steps / 2);
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let length = self.steps.saturating_sub(warmup).max(1) as f64;
        let done = ((step - warmup) as f64 / length).min(1.0);
        let high = 1.0 - self.end;
        match self.shape {
            Shape::Cosine => self.end + high * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Shape::Wsd if self.decay > 0.0 => {
                let falling = ((done - (1.0 - self.decay)) / self.decay).clamp(0.0, 1.0);
                1.0 - high * falling
            }
            Shape::Wsd => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_rise_stay_and_fall() {
        let wsd = Schedule { steps: 110, warmup: 10, decay: 0.2, end: 0.1, ..Schedule::default() };
        assert_eq!([0, 4, 9, 10, 89, 90].map(|step| wsd.share(step)), [0.1, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert!((wsd.share(100) - 0.55).abs() < 1e-9 && (wsd.share(110) - 0.1).abs() < 1e-9);
        let cosine = Schedule { shape: Shape::Cosine, ..wsd };
        assert!((cosine.share(60) - 0.55).abs() < 1e-9 && (cosine.share(500) - 0.1).abs() < 1e-9);
        assert!((10..110).all(|step| cosine.share(step + 1) < cosine.share(step)));
    }
}
