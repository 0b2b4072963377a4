//! The curves of a run as a picture: loss of what is learned and of what is not, over the steps.

use std::fmt::Write as _;

/// Size of the picture and of its margins, in pixels.
const SIZE: (f64, f64) = (800.0, 450.0);
const MARGINS: [f64; 4] = [30.0, 20.0, 45.0, 60.0]; // above, right, below, left
/// Points of the smoothed curve, at most.
const POINTS: usize = 300;
/// Marks per axis, about.
const MARKS: f64 = 6.0;

/// A line of the log that has a loss: step, loss, loss of what is not learned.
type Row = (f64, f64, Option<f64>);

/// Draws the log of a run, a CSV with the columns `step`, `loss` and `eval_loss`.
pub fn svg(log: &str) -> String {
    let rows = rows(log);
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let learned: Vec<(f64, f64)> = smoothed(&rows);
    let examined: Vec<(f64, f64)> =
        rows.iter().filter_map(|(step, _, loss)| Some((*step, (*loss)?))).collect();
    if let Some(axes) = Axes::of(&learned, &examined) {
        axes.draw(&mut svg);
        axes.curve(&mut svg, &learned, "#c60");
        axes.curve(&mut svg, &examined, "#06c");
        for (at, (colour, name)) in
            [("#c60", "loss"), ("#06c", "loss of what is not learned")].iter().enumerate()
        {
            let y = MARGINS[0] + 14.0 + 18.0 * at as f64;
            let x = width - MARGINS[1] - 190.0;
            // Writing to a text cannot fail.
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {0} h20\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{1}\" y=\"{y}\">{name}</text>",
                y - 4.0,
                x + 26.0
            );
        }
    }
    svg + "</svg>\n"
}

fn rows(log: &str) -> Vec<Row> {
    let mut lines = log.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| names.iter().position(|other| *other == name);
    let (Some(step), Some(loss)) = (column("step"), column("loss")) else { return Vec::new() };
    let eval = column("eval_loss");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: usize| cells.get(at)?.parse::<f64>().ok().filter(|x| x.is_finite());
        Some((number(step)?, number(loss)?, eval.and_then(number)))
    };
    lines.filter_map(row).collect()
}

/// Means of neighbouring steps.
fn smoothed(rows: &[Row]) -> Vec<(f64, f64)> {
    let mean = |rows: &[Row]| {
        let sum = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        (sum.0 / rows.len() as f64, sum.1 / rows.len() as f64)
    };
    rows.chunks(rows.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// What lies where.
struct Axes {
    steps: (f64, f64),
    losses: (f64, f64),
}

impl Axes {
    fn of(learned: &[(f64, f64)], examined: &[(f64, f64)]) -> Option<Axes> {
        let all = || learned.iter().chain(examined);
        let last = all().map(|point| point.0).fold(f64::NAN, f64::max);
        let high = all().map(|point| point.1).fold(f64::NAN, f64::max);
        (last.is_finite() && high.is_finite())
            .then(|| Axes { steps: (0.0, last.max(1.0)), losses: (0.0, high.max(1e-3) * 1.05) })
    }

    fn place(&self, (step, loss): (f64, f64)) -> (f64, f64) {
        let part = |x: f64, (from, to): (f64, f64)| (x - from) / (to - from);
        let [above, right, below, left] = MARGINS;
        (
            left + part(step, self.steps) * (SIZE.0 - left - right),
            SIZE.1 - below - part(loss, self.losses) * (SIZE.1 - above - below),
        )
    }

    fn draw(&self, svg: &mut String) {
        let (left, bottom) = self.place((self.steps.0, self.losses.0));
        let (right, top) = self.place((self.steps.1, self.losses.1));
        for mark in marks(self.losses.1) {
            let (_, y) = self.place((0.0, mark));
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y:.1} H{right}\" stroke=\"#ddd\"/><text x=\"{0}\" y=\"{1:.1}\" text-anchor=\"end\">{mark}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        for mark in marks(self.steps.1) {
            let (x, _) = self.place((mark, 0.0));
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark}</text>",
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {top:.1} V{bottom} H{right}\" fill=\"none\" stroke=\"#333\"/>\
             <text x=\"{0}\" y=\"{1}\" text-anchor=\"middle\">step</text><text x=\"10\" y=\"18\">nats per token</text>",
            (left + right) / 2.0,
            bottom + 34.0
        );
    }

    fn curve(&self, svg: &mut String, points: &[(f64, f64)], colour: &str) {
        let places = points.iter().map(|point| self.place(*point));
        let path: Vec<String> = places.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
    }
}

/// Round numbers from 0 to `most`.
fn marks(most: f64) -> Vec<f64> {
    let rough = most / MARKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= rough).unwrap_or(power);
    let count = (most / step) as usize;
    (0..=count).map(|i| (i as f64 * step / power).round() * power).map(|x| (x * 1e6).round() / 1e6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_with_a_loss_is_in_the_picture_and_nothing_else() {
        let log = "step,tokens,loss,eval_loss\n1,5,4.0,\n2,10,2.0,3.0\n3,15,NaN,\nbroken\n4,20,1.0,1.5\n";
        assert_eq!(rows(log), [(1.0, 4.0, None), (2.0, 2.0, Some(3.0)), (4.0, 1.0, Some(1.5))]);
        let svg = svg(log);
        let of = |colour: &str| {
            let line =
                svg.lines().find(|line| line.contains("polyline") && line.contains(colour)).expect("a curve");
            line.split('"').nth(1).expect("points").split(' ').count() / 2
        };
        assert_eq!((of("#c60"), of("#06c")), (3, 2));
        // Lower losses are lower in the picture.
        let axes = Axes::of(&[(1.0, 4.0)], &[]).expect("a loss");
        assert!(axes.place((0.0, 1.0)).1 > axes.place((0.0, 3.0)).1);
    }

    #[test]
    fn a_log_without_losses_is_an_empty_picture() {
        for log in ["", "step,loss\n", "a,b\n1,2\n"] {
            assert!(svg(log).ends_with("</svg>\n") && !svg(log).contains("polyline"), "{log}");
        }
    }

    #[test]
    fn marks_are_round_and_cover_the_axis() {
        assert_eq!(marks(6000.0), [0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0]);
        assert_eq!(marks(0.7), [0.0, 0.2, 0.4, 0.6]);
        for most in [0.001, 0.3, 9.1, 777.0] {
            let marks = marks(most);
            assert!(
                (2..=12).contains(&marks.len()) && marks.iter().all(|x| *x <= most * 1.0001),
                "{marks:?}"
            );
        }
    }
}
