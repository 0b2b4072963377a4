//! Everything of a Mamba-2 mixer between its two projections (Dao & Gu 2024, arXiv 2405.21060, section 7): the short
//! convolution, the recurrence, the gated norm.
//!
//! Legend: l tokens · i = h·p inner width · h heads of width p · g groups · n state width · k convolution width.
//!
//! ```text
//! z, xBC, dt = zxBCdt                                    (l, i), (l, i + 2·g·n), (l, h)
//! x, B, C = causal_conv_silu(xBC)                        (l, i), (l, g·n), (l, g·n)
//! out = rms_norm_gated(ssd(x, dt, B, C), z)              (l, i)
//! ```
//!
//! It is defined by the three operations, and on the host it is them. On a device a few tokens take one launch for all
//! three, with the same order of arithmetic.

mod backward;
#[cfg(test)]
mod backward_tests;
mod cuda;
#[cfg(test)]
mod tests;

pub use backward::{MixerGradients, mamba2_backward};

use crate::causal_conv::{Conv, causal_conv_silu};
use crate::device::{Cx, Mat, Vector, View};
use crate::rms_norm_gated::rms_norm_gated;
use crate::sequences::{DeviceSequence, SEQUENCES_MAX, address};
use crate::ssd::{Ssd, SsdInput, ssd};
use std::ops::Range;

/// The parameters.
#[derive(Debug)]
pub struct Mixer {
    conv: Conv,
    ssd: Ssd,
    norm: Vector,
    eps: f32,
    tickets: cuda::Tickets,
}

/// Where the columns of zxBCdt are.
struct Columns {
    z: Range<usize>,
    xBC: Range<usize>,
    dt: Range<usize>,
}

impl Mixer {
    /// Parameters of a convolution over (i + 2·g·n) channels, of a recurrence, and of a norm, (i) and ε.
    ///
    /// # Panics
    /// If their shapes do not agree.
    pub fn new(conv: Conv, ssd: Ssd, norm: Vector, eps: f32) -> Mixer {
        let (i, h, g) = (norm.len(), ssd.num_heads(), ssd.num_groups);
        assert!(i.is_multiple_of(h) && h.is_multiple_of(g), "Mixer: {g} groups of {h} heads of {i} columns");
        let of_BC = conv.channels().checked_sub(i);
        assert!(
            of_BC.is_some_and(|of_BC| of_BC.is_multiple_of(2 * g)),
            "Mixer: {} channels",
            conv.channels()
        );
        Mixer { conv, ssd, norm, eps, tickets: cuda::Tickets::default() }
    }

    /// i.
    fn inner(&self) -> usize {
        self.norm.len()
    }

    /// n.
    fn state_width(&self) -> usize {
        (self.conv.channels() - self.inner()) / (2 * self.ssd.num_groups)
    }

    fn columns(&self) -> Columns {
        let (i, c, h) = (self.inner(), self.conv.channels(), self.ssd.num_heads());
        Columns { z: 0..i, xBC: i..i + c, dt: i + c..i + c + h }
    }

    /// The parts of xBC.
    fn input<'a>(&self, xBC: View<'a>, dt: View<'a>) -> SsdInput<'a> {
        let (i, gn) = (self.inner(), self.state_width() * self.ssd.num_groups);
        SsdInput {
            x: xBC.slice_cols(0..i),
            B: xBC.slice_cols(i..i + gn),
            C: xBC.slice_cols(i + gn..i + 2 * gn),
            dt,
        }
    }
}

/// Convolution, recurrence and norm of the rows of each sequence, in order. A sequence is a range of rows with the two
/// parts of its state, which are advanced. Rows of no sequence have unspecified results. Everything lies in one place.
///
/// # Shapes
/// `zxBCdt` (l, 2·i + 2·g·n + h), the parts of a state (k − 1, i + 2·g·n) and (h, p, n), result (l, i).
///
/// # Panics
/// If the shapes do not agree.
pub fn mamba2<'a>(
    cx: &Cx,
    mixer: &Mixer,
    zxBCdt: View<'_>,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a mut Vector, &'a mut Vector)>,
) -> Mat {
    let (l, cols) = (zxBCdt.rows(), mixer.columns().dt.end);
    assert!(zxBCdt.cols() == cols, "mamba2: {} columns instead of {cols}", zxBCdt.cols());
    if let Some(on_device) = zxBCdt.device() {
        let sequences = sequences.into_iter().map(|(rows, conv, ssm)| {
            let (kept, width) = ((mixer.conv.taps() - 1) * mixer.conv.channels(), mixer.state_width());
            assert!(rows.end <= l, "mamba2: rows {rows:?} of {l}");
            assert!(conv.len() == kept && ssm.len() == mixer.inner() * width, "mamba2: a state");
            DeviceSequence { rows, conv: address(conv), ssm: address(ssm) }
        });
        return cuda::mamba2(cx, mixer, zxBCdt, on_device, &Vec::from_iter(sequences));
    }
    mamba2_kept(cx, mixer, zxBCdt, sequences).0
}

/// What lies between the three operations, for the way back ([`mamba2_backward`]).
#[derive(Debug)]
pub struct Between {
    /// What the convolution makes: (l, i + 2·g·n).
    xBC: Mat,
    /// What the recurrence makes: (l, i).
    y: Mat,
}

/// [`mamba2`] on the host, and what lies between its operations.
///
/// # Panics
/// As there.
pub fn mamba2_kept<'a>(
    cx: &Cx,
    mixer: &Mixer,
    zxBCdt: View<'_>,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a mut Vector, &'a mut Vector)>,
) -> (Mat, Between) {
    let (l, Columns { z, xBC, dt }) = (zxBCdt.rows(), mixer.columns());
    let (z, xBC_in, dt) = (zxBCdt.slice_cols(z), zxBCdt.slice_cols(xBC), zxBCdt.slice_cols(dt));
    let (mut xBC, mut y) = (cx.mat(l, mixer.conv.channels()), cx.mat(l, mixer.inner()));
    // Both operations want the sequences, of which there is one iterator; so many at a time need no memory.
    let mut sequences = sequences.into_iter().fuse();
    loop {
        let mut region: [Option<_>; SEQUENCES_MAX] = std::array::from_fn(|_| sequences.next());
        if region[0].is_none() {
            break;
        }
        let of_conv = region.iter_mut().flatten().map(|(rows, conv, _)| (rows.clone(), &mut **conv));
        causal_conv_silu(cx, xBC_in, &mixer.conv, of_conv, &mut xBC);
        let of_ssm = region.iter_mut().flatten().map(|(rows, _, ssm)| (rows.clone(), &mut **ssm));
        ssd(cx, &mixer.ssd, mixer.input(xBC.view(), dt), of_ssm, &mut y);
    }
    let out = rms_norm_gated(cx, y.view(), z, &mixer.norm, mixer.ssd.num_groups, mixer.eps);
    (out, Between { xBC, y })
}
