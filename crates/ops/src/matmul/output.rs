//! Where results go.

use crate::device::SharedRows;

/// The outputs of a linear layer, and what is done to a sum before it becomes one.
pub(super) struct Output<'a> {
    /// (m, rows of the weight).
    pub y: &'a SharedRows<'a>,
    /// Multiplies every sum.
    pub scale: f32,
    /// Added after that, one per output.
    pub bias: Option<&'a [f32]>,
}

impl Output<'_> {
    /// Writes outputs `r ..` of token `m`.
    ///
    /// # Safety
    /// No other thread may write the same outputs.
    pub(super) unsafe fn write(&self, m: usize, r: usize, sums: &[f32]) {
        // SAFETY: the caller vouches.
        let y = unsafe { self.y.part(m, r..r + sums.len()) };
        for (i, (y, s)) in y.iter_mut().zip(sums).enumerate() {
            let scaled = if self.scale == 1.0 { *s } else { *s * self.scale };
            *y = self.bias.map_or(scaled, |bias| scaled + bias[r + i]);
        }
    }
}
