//! Depthwise causal convolution followed by silu, the short convolution of Mamba
//! (Gu & Dao 2023, arXiv 2312.00752, section 3.4).
//!
//! ```text
//! s = b[c];  s = fma(w[j, c], x[t − (k − 1) + j, c], s) for j = 0 .. k − 1;  y[t, c] = silu(s)
//! ```
//!
//! Inputs before the first token of the call come from the state: the last k − 1 inputs, oldest first, zeros
//! before the beginning of the sequence. The state is advanced by the tokens of the call.

pub mod reference;
#[cfg(test)]
mod tests;

use crate::device::{Cx, SharedRows, View, ViewMut};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::silu_lanes;

/// Weights of one convolution over `channels` channels.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Taps, (k, c): tap-major, the last tap meets the current token.
    pub weight: Vec<f32>,
    /// (c); zeros if the checkpoint has none.
    pub bias: Vec<f32>,
}

impl Conv {
    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.weight.len() / self.bias.len()
    }
}

/// The channels `from .. from + out.len()` of token `t`. `history` holds the k rows the taps meet, as slices of
/// all channels.
type Kernel = unsafe fn(conv: &Conv, history: &[&[f32]], from: usize, out: &mut [f32]);

over_lanes! {
    /// Best first.
    pub(crate) static IMPLS: Kernel =
        token(conv: &Conv, history: &[&[f32]], from: usize, out: &mut [f32]), reference::token
}

/// Channels given to a thread at once: rows of a cache line multiple, enough to amortise a claim.
const CHANNELS_PER_PART: usize = 1024;

/// Widest convolution (`tangelo_core::limits::CONV_KERNEL_MAX`), so that a token's history fits on the stack.
const TAPS_MAX: usize = tangelo_core::limits::CONV_KERNEL_MAX;

/// Convolves the rows of `x` (one sequence, in order), applies silu, and advances `state`.
///
/// # Shapes
/// `x` (l, c), `state` (k − 1, c), `out` (l, c).
///
/// # Panics
/// If the shapes do not agree.
pub fn causal_conv_silu(cx: &Cx, x: View<'_>, conv: &Conv, state: &mut [f32], out: &mut ViewMut<'_>) {
    let (l, c, k) = (x.rows(), conv.channels(), conv.taps());
    assert!(x.cols() == c && out.cols() == c && out.rows() == l, "causal_conv_silu: x and out");
    assert!(state.len() == (k - 1) * c && conv.weight.len() == k * c, "causal_conv_silu: state and taps");
    assert!(k <= TAPS_MAX, "causal_conv_silu: {k} taps, at most {TAPS_MAX}");
    let shared = out.share();
    let past = &*state;
    cx.run_ranges(c, CHANNELS_PER_PART, &|channels| {
        let mut history: [&[f32]; TAPS_MAX] = [&[]; TAPS_MAX];
        for t in 0..l {
            for j in 0..k {
                history[j] = input(past, x, c, k, t + j);
            }
            run(cx, conv, &history[..k], &shared, t, channels.clone());
        }
    });
    advance(x, state, c, k);
}

fn run(
    cx: &Cx,
    conv: &Conv,
    history: &[&[f32]],
    out: &SharedRows<'_>,
    t: usize,
    channels: std::ops::Range<usize>,
) {
    let kernel = cx.choose(IMPLS);
    // SAFETY: each range of channels belongs to one part; `choose` returns what this machine can run.
    unsafe { kernel(conv, history, channels.start, out.part(t, channels)) }
}

/// Row `at` of the state followed by the rows of `x`.
fn input<'a>(state: &'a [f32], x: View<'a>, c: usize, k: usize, at: usize) -> &'a [f32] {
    if at < k - 1 { &state[at * c..(at + 1) * c] } else { x.row(at - (k - 1)) }
}

/// Keeps the last k − 1 inputs.
fn advance(x: View<'_>, state: &mut [f32], c: usize, k: usize) {
    let l = x.rows();
    let kept = (k - 1).saturating_sub(l); // rows of the old state that stay
    state.copy_within((k - 1 - kept) * c.., 0);
    for row in kept..k - 1 {
        state[row * c..(row + 1) * c].copy_from_slice(x.row(l + row - (k - 1)));
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn token<V: Lanes>(conv: &Conv, history: &[&[f32]], from: usize, out: &mut [f32]) {
    let (c, to) = (conv.channels(), from + out.len());
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        for at in (0..out.len()).step_by(LANES) {
            let mut sum = load_at::<V>(&conv.bias[..to], from + at);
            for (j, x) in history.iter().enumerate() {
                let w = load_at::<V>(&conv.weight[j * c..j * c + to], from + at);
                sum = w.fma(load_at::<V>(&x[..to], from + at), sum);
            }
            store_at(silu_lanes(sum), out, at);
        }
    }
}
