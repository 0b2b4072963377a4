//! The definition.

use super::{BLOCK, HALF, TINY};

/// See [`super`].
pub fn row(x: &[f32], q: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        // As integers the magnitudes are ordered with infinities and then NaNs on top.
        let largest = x.iter().map(|v| v.abs().to_bits()).max().unwrap_or(0);
        let largest = f32::from_bits(largest);
        let (scale, inverse) = match largest {
            m if m < TINY => (0.0, 0.0),
            m if m < f32::INFINITY => (m / 127.0, 127.0 / m),
            _ => (f32::NAN, 0.0),
        };
        d[b] = scale;
        for i in 0..BLOCK {
            let code = if inverse == 0.0 { 0.0 } else { (x[i] * inverse).round_ties_even() };
            q[b * BLOCK + i] = code as i8;
        }
        for half in 0..BLOCK / HALF {
            let at = b * BLOCK + half * HALF;
            sum[at / HALF] = q[at..at + HALF].iter().map(|&q| i32::from(q)).sum();
        }
    }
}
