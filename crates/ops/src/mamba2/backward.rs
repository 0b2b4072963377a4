//! The gradient of [`super::mamba2`] for sequences that begin with nothing, or with a recurrent state that may be learned.

use super::{Columns, Mixer};
use crate::causal_conv::{causal_conv_silu, causal_conv_silu_backward};
use crate::device::{Cx, Mat, Vector, View};
use crate::rms_norm_gated::rms_norm_gated_backward;
use crate::ssd::{SsdGradients, ssd, ssd_backward};
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
/// for all sequences. What lies between input and output is computed again.
///
/// # Shapes
/// As for [`super::mamba2`]; `dout` (l, i), result as `zxBCdt`, the first state and its gradient (h, p, n).
///
/// # Panics
/// If the shapes do not agree.
pub fn mamba2_backward(
    cx: &Cx,
    mixer: &Mixer,
    zxBCdt: View<'_>,
    sequences: &[Range<usize>],
    dout: View<'_>,
    gradients: MixerGradients<'_>,
    initial: Option<(&Vector, &mut [f32])>,
) -> Mat {
    let (l, i, Columns { z, xBC, dt }) = (zxBCdt.rows(), mixer.inner(), mixer.columns());
    assert!(zxBCdt.cols() == dt.end, "mamba2_backward: {} columns instead of {}", zxBCdt.cols(), dt.end);
    let (Range { start: of_xBC, .. }, Range { start: of_dt, .. }) = (xBC.clone(), dt.clone());
    let (z, xBC_in, dt) = (zxBCdt.slice_cols(z), zxBCdt.slice_cols(xBC), zxBCdt.slice_cols(dt));
    let (mut xBC, mut y) = (cx.mat(l, mixer.conv.channels()), cx.mat(l, i));
    let mut conv_states: Vec<Vector> = sequences.iter().map(|_| mixer.first_conv_state()).collect();
    causal_conv_silu(cx, xBC_in, &mixer.conv, sequences.iter().cloned().zip(&mut conv_states), &mut xBC);
    let mut states: Vec<Vector> =
        sequences.iter().map(|_| mixer.first_state(initial.as_ref().map(|i| i.0))).collect();
    ssd(cx, &mixer.ssd, mixer.input(xBC.view(), dt), sequences.iter().cloned().zip(&mut states), &mut y);
    drop((states, conv_states));

    let mut dzxBCdt = cx.mat(l, zxBCdt.cols());
    let MixerGradients { dconv, dconv_bias, ssd: of_ssd, dnorm } = gradients;
    let dy = rms_norm_gated_backward(
        cx,
        [y.view(), z, dout],
        &mixer.norm,
        mixer.ssd.num_groups,
        mixer.eps,
        &mut dzxBCdt,
        dnorm,
    );
    let input = mixer.input(xBC.view(), dt);
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
