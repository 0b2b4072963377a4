//! What is seen of a run: a few lines that change on a terminal, a line per step elsewhere.

use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use tangelo_train::Report;

/// Width of the curves, in characters.
const CURVE: usize = 60;
/// From low to high.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How much of the speed shown is that of the last step.
const FRESH: f64 = 0.1;

/// See the module.
pub struct Dashboard {
    bar: ProgressBar,
    steps: u64,
    /// Floating-point operations per token.
    operations: usize,
    tokens: u64,
    losses: Vec<f64>,
    eval_losses: Vec<f64>,
    /// Means of seconds per step and tokens per second.
    pace: Option<(f64, f64)>,
}

impl Dashboard {
    /// For a run of so many steps, `done` of which have been taken and have read `tokens`. Every parameter takes two operations
    /// per token forward and two on the way back to what comes in, and one that learns two for its own gradient.
    pub fn new(steps: u64, done: u64, tokens: u64, [all, learning]: [usize; 2]) -> Dashboard {
        let style = ProgressStyle::with_template("{msg}\n[{bar:40}] {pos}/{len} steps, {prefix} left");
        let style = style.expect("the template above is valid").progress_chars("=> ");
        let bar = ProgressBar::new(steps).with_position(done).with_style(style);
        let operations = 4 * all + 2 * learning;
        Dashboard { bar, steps, operations, tokens, losses: Vec::new(), eval_losses: Vec::new(), pace: None }
    }

    /// Shows a step.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn show(&mut self, report: &Report) -> io::Result<()> {
        self.tokens += report.tokens as u64;
        self.losses.push(report.loss);
        self.eval_losses.extend(report.eval_loss);
        let seconds = report.time.as_secs_f64();
        let now = (seconds, report.tokens as f64 / seconds);
        let mean = |old: f64, new: f64| old + FRESH * (new - old);
        let pace = self.pace.map_or(now, |pace| (mean(pace.0, now.0), mean(pace.1, now.1)));
        self.pace = Some(pace);
        let left = self.steps.saturating_sub(report.step) as f64 * pace.0;
        let left = FormattedDuration(Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX));
        if self.bar.is_hidden() {
            return writeln!(io::stdout(), "{}, {} left", self.line(report, now.1), left);
        }
        self.bar.set_position(report.step);
        self.bar.set_prefix(left.to_string());
        self.bar.set_message(self.page(report, pace.1));
        self.bar.tick();
        Ok(())
    }

    /// Leaves what is seen as it is.
    pub fn finish(&self) {
        self.bar.abandon();
    }

    fn gflops(&self, rate: f64) -> f64 {
        self.operations as f64 * rate / 1e9
    }

    fn line(&self, report: &Report, rate: f64) -> String {
        let Report { step, loss, lr, gradient, eval_loss, .. } = report;
        let eval = eval_loss.map_or_else(String::new, |loss| format!(", not learned {loss:.4}"));
        format!(
            "step {step}/{}: loss {loss:.4}{eval}, gradient {gradient:.3}, rate {lr:.2e}, {rate:.0} tokens/s, {:.0} GFLOP/s",
            self.steps,
            self.gflops(rate)
        )
    }

    fn page(&self, report: &Report, rate: f64) -> String {
        let Report { loss, lr, gradient, .. } = report;
        let mut page = format!("loss         {loss:<8.4} {}\n", curve(&self.losses));
        if let Some(loss) = self.eval_losses.last() {
            page += &format!("not learned  {loss:<8.4} {}\n", curve(&self.eval_losses));
        }
        page + &format!(
            "gradient     {gradient:<8.3} rate {lr:.2e}, {rate:.0} tokens/s, {:.0} GFLOP/s, {:.1} M tokens read",
            self.gflops(rate),
            self.tokens as f64 / 1e6
        )
    }
}

/// A curve of characters: means of neighbours, from the lowest to the highest.
fn curve(values: &[f64]) -> String {
    let parts = values.chunks(values.len().div_ceil(CURVE).max(1));
    let means: Vec<f64> = parts.map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |x: &f64| {
        let part = if high > low { (x - low) / (high - low) } else { 0.0 };
        LEVELS[((part * LEVELS.len() as f64) as usize).min(LEVELS.len() - 1)]
    };
    means.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_from_the_lowest_to_the_highest_and_stay_narrow() {
        assert_eq!(curve(&[2.0, 1.0, 0.0]), "█▅▁");
        assert_eq!(curve(&[1.0, 1.0]), "▁▁");
        assert_eq!(curve(&[]), "");
        let long: Vec<f64> = (0..1000).map(f64::from).collect();
        assert!((CURVE / 2..=CURVE).contains(&curve(&long).chars().count()));
    }

    #[test]
    fn a_step_is_a_line_with_what_matters() {
        let mut dashboard = Dashboard::new(10, 0, 0, [1_000_000; 2]);
        let time = Duration::from_millis(500);
        let (loss, gradient) = (1.25, 0.5);
        let report = Report { step: 3, tokens: 100, loss, lr: 1e-3, gradient, time, eval_loss: Some(1.5) };
        dashboard.show(&report).expect("standard output");
        let line = dashboard.line(&report, 200.0);
        assert_eq!(
            line,
            "step 3/10: loss 1.2500, not learned 1.5000, gradient 0.500, rate 1.00e-3, 200 tokens/s, 1 GFLOP/s"
        );
        let page = dashboard.page(&report, 200.0);
        assert!(page.contains("not learned  1.5000") && page.ends_with("0.0 M tokens read"), "{page}");
    }
}
