//! Depthwise causal convolution followed by silu, the short convolution of Mamba
//! (Gu & Dao 2023, arXiv 2312.00752, section 3.4).
//!
//! ```text
//! s = b[c];  s = fma(w[j, c], x[t − (k − 1) + j, c], s) for j = 0 .. k − 1;  y[t, c] = silu(s)
//! ```
//!
//! Inputs before the first token of the call come from the state: the last k − 1 inputs, oldest first, zeros
//! before the beginning of the sequence. The state is advanced by the tokens of the call.

mod backward;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

pub use backward::causal_conv_silu_backward;

use crate::device::{Cx, Mat, SharedRows, Vector, View};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::silu_lanes;
use crate::sequences::{DeviceSequence, address, run_sequences};
use std::ops::Range;

/// Weights of one convolution over `channels` channels.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Taps, (k, c): tap-major, the last tap meets the current token.
    pub weight: Vector,
    /// (c); zeros if the checkpoint has none.
    pub bias: Vector,
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

/// The channels `from .. from + out.len()` of one token. `history` holds these channels of the k inputs that the taps
/// meet.
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

/// Convolves the rows of each sequence, in order, and applies silu. A sequence is a range of rows of `x` and `out` with
/// its state, which is advanced. Everything lies in one place.
///
/// # Shapes
/// `x` (l, c), a state (k − 1, c), `out` (l, c).
///
/// # Panics
/// If the shapes do not agree.
pub fn causal_conv_silu<'a>(
    cx: &Cx,
    x: View<'_>,
    conv: &Conv,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a mut Vector)>,
    out: &mut Mat,
) {
    let (c, k) = (conv.channels(), conv.taps());
    assert!(x.cols() == c && out.cols() == c && out.rows() == x.rows(), "causal_conv_silu: x and out");
    assert!(conv.weight.len() == k * c, "causal_conv_silu: {k} taps of {c} channels");
    assert!(k <= TAPS_MAX, "causal_conv_silu: {k} taps, at most {TAPS_MAX}");
    let sequences = sequences.into_iter().inspect(|(_, state)| {
        assert!(state.len() == (k - 1) * c, "causal_conv_silu: a state of {} numbers", state.len());
    });
    if let Some(on_device) = x.device() {
        let sequences = sequences.map(|(rows, state)| {
            assert!(rows.end <= x.rows(), "causal_conv_silu: rows {rows:?} of {}", x.rows());
            DeviceSequence { rows, conv: address(state), ssm: 0 }
        });
        return cuda::causal_conv_silu(on_device, conv, &Vec::from_iter(sequences), out);
    }
    let mut out = out.view_mut();
    let (out, kernel) = (out.share(), cx.choose(IMPLS));
    let sequences = sequences.map(|(rows, state)| {
        (rows.start, Inputs { x: x.slice_rows(rows), state: SharedRows::new(state, c) })
    });
    let num_parts = c.div_ceil(CHANNELS_PER_PART);
    run_sequences(
        cx,
        sequences,
        |_| num_parts,
        |(first_row, inputs), part| {
            let channels = part * CHANNELS_PER_PART..c.min((part + 1) * CHANNELS_PER_PART);
            // SAFETY: each range of channels of a sequence belongs to one part; `choose` returns what this machine can
            // run.
            unsafe {
                let mut history: [&[f32]; TAPS_MAX] = [&[]; TAPS_MAX];
                for t in 0..inputs.x.rows() {
                    for (j, input) in history[..k].iter_mut().enumerate() {
                        *input = inputs.get(t + j, k, channels.clone());
                    }
                    let out = out.part(first_row + t, channels.clone());
                    kernel(conv, &history[..k], channels.start, out);
                }
                inputs.advance(k, channels);
            }
        },
    );
}

/// The inputs of one sequence: its state followed by its rows of x.
struct Inputs<'a> {
    x: View<'a>,
    /// (k − 1, c).
    state: SharedRows<'a>,
}

impl Inputs<'_> {
    /// Some channels of the input `at`, counted from the first one of the state.
    ///
    /// # Safety
    /// No other thread may use these channels of the state, and nobody may change them while the result is in use.
    unsafe fn get(&self, at: usize, k: usize, channels: Range<usize>) -> &[f32] {
        match at.checked_sub(k - 1) {
            // SAFETY: the caller vouches.
            None => unsafe { self.state.part(at, channels) },
            Some(row) => &self.x.row(row)[channels],
        }
    }

    /// Keeps the last k − 1 inputs of some channels.
    ///
    /// # Safety
    /// No other thread may use these channels of the state.
    unsafe fn advance(&self, k: usize, channels: Range<usize>) {
        let l = self.x.rows();
        for row in 0..(k - 1) * usize::from(l > 0) {
            // SAFETY: the caller vouches, and the input that is copied lies in a later row or in x.
            unsafe {
                let input = self.get(row + l, k, channels.clone());
                self.state.part(row, channels.clone()).copy_from_slice(input);
            }
        }
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
            let mut sum = load_at::<V>(&conv.bias[from..to], at);
            for (j, x) in history.iter().enumerate() {
                let w = load_at::<V>(&conv.weight[j * c + from..j * c + to], at);
                sum = w.fma(load_at::<V>(&x[..to - from], at), sum);
            }
            store_at(silu_lanes(sum), out, at);
        }
    }
}
