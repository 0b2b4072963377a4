//! The gradient of [`super::mamba2`] for sequences that begin with nothing, or with a recurrent state that may be learned.

use super::{Between, Columns, Mixer};
use crate::causal_conv::causal_conv_silu_backward;
use crate::device::{Cx, Mat, Vector, View};
use crate::rms_norm_gated::rms_norm_gated_backward;
use crate::ssd::{SsdGradients, ssd_backward};
use std::ops::Range;

/// Gradients of a mixer's parameters, which are added to.
#[derive(Debug)]
pub struct MixerGradients<'a> {
    /// Of the taps of the convolution, (k, i + 2·g·n).
    pub dconv: &'a mut [f32],
    /// Of its bias, (i + 2·g·n).
    pub dconv_bias: &'a mut [f32],
    /// Of the recurrence.
    pub ssd: SsdGradients<'a>,
    /// Of the norm's weight, (i).
    pub dnorm: &'a mut [f32],
}

/// Returns the gradient of `zxBCdt`, and adds to those of the parameters, and of the first recurrent state if there is one
/// for all sequences. `between` is what [`super::mamba2_kept`] made of it.
///
/// # Shapes
/// As for [`super::mamba2`]; `dout` (l, i), result as `zxBCdt`, the first state and its gradient (h, p, n).
///
/// # Panics
/// If the shapes do not agree.
pub fn mamba2_backward(
    cx: &Cx,
    mixer: &Mixer,
    (zxBCdt, between): (View<'_>, &Between),
    sequences: &[Range<usize>],
    dout: View<'_>,
    gradients: MixerGradients<'_>,
    initial: Option<(&Vector, &mut [f32])>,
) -> Mat {
    let (l, Columns { z, xBC, dt }) = (zxBCdt.rows(), mixer.columns());
    assert!(zxBCdt.cols() == dt.end, "mamba2_backward: {} columns instead of {}", zxBCdt.cols(), dt.end);
    let (Range { start: of_xBC, .. }, Range { start: of_dt, .. }) = (xBC.clone(), dt.clone());
    let (z, xBC_in, dt) = (zxBCdt.slice_cols(z), zxBCdt.slice_cols(xBC), zxBCdt.slice_cols(dt));
    let mut dzxBCdt = cx.mat(l, zxBCdt.cols());
    let MixerGradients { dconv, dconv_bias, ssd: of_ssd, dnorm } = gradients;
    let dy = rms_norm_gated_backward(
        cx,
        [between.y.view(), z, dout],
        &mixer.norm,
        mixer.ssd.num_groups,
        mixer.eps,
        &mut dzxBCdt,
        dnorm,
    );
    let input = mixer.input(between.xBC.view(), dt);
    let dxBC = ssd_backward(cx, &mixer.ssd, input, sequences, &dy, (&mut dzxBCdt, of_dt), of_ssd, initial);
    let into = (&mut dzxBCdt, of_xBC);
    causal_conv_silu_backward(cx, [xBC_in, dxBC.view()], &mixer.conv, sequences, into, dconv, dconv_bias);
    dzxBCdt
}

impl Mixer {
    /// The recurrent state that a sequence begins with: a copy of the one given, or zeros.
    pub fn first_state(&self, initial: Option<&Vector>) -> Vector {
        initial.cloned().unwrap_or_else(|| vec![0.0; self.inner() * self.state_width()].into())
    }

    /// The state of the convolution of a sequence that begins.
    pub fn first_conv_state(&self) -> Vector {
        vec![0.0; (self.conv.taps() - 1) * self.conv.channels()].into()
    }
}
