//! The definition.

use super::{BLOCK, Block, TINY};

/// See [`super`].
///
/// # Safety
/// Records `out`, `out + stride`, … must be writable, one per 32 elements.
pub unsafe fn row(x: &[f32], out: *mut Block, stride: usize) {
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        // SAFETY: the caller vouches.
        unsafe { out.add(b * stride).write(block(x)) };
    }
}

fn block(x: &[f32; BLOCK]) -> Block {
    // As integers the magnitudes are ordered with infinities and then NaNs on top.
    let largest = x.iter().map(|v| v.abs().to_bits()).max().unwrap_or(0);
    let largest = f32::from_bits(largest);
    let (d, inverse) = match largest {
        m if m < TINY => (0.0, 0.0),
        m if m < f32::INFINITY => (m / 127.0, 127.0 / m),
        _ => (f32::NAN, 0.0),
    };
    let q = x.map(|x| if inverse == 0.0 { 0 } else { (x * inverse).round_ties_even() as i8 });
    with_sums(q, d)
}

/// A record and its sums.
fn with_sums(q: [i8; BLOCK], d: f32) -> Block {
    let over = |part: std::ops::Range<usize>, of: &dyn Fn(usize) -> bool| -> i32 {
        part.filter(|&i| of(i)).map(|i| i32::from(q[i])).sum()
    };
    let parts = [0..BLOCK / 2, BLOCK / 2..BLOCK, 0..BLOCK];
    let sum = parts.clone().map(|part| over(part, &|_| true));
    let pairs = parts.map(|part| {
        let (lower, upper) = (over(part.clone(), &|i| i % 4 < 2), over(part, &|i| i % 4 >= 2));
        (lower & 0xffff) | upper << 16
    });
    Block { q, d, d_sum: d * sum[2] as f32, sum, pairs }
}
