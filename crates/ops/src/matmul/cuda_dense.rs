//! Plain floats on a device.

use super::Packed;
use crate::device::{DeviceView, Mat, Vector};

/// [`super::matmul`] of a matrix of `tokens` rows on a device.
pub(super) fn matmul(x: DeviceView<'_>, tokens: usize, w: &Packed, _bias: Option<&Vector>) -> Mat {
    Mat::on_device(x.gpu, tokens, w.rows())
}
