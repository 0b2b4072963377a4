//! A linear layer as a value: how its weight is stored is nobody else's business.

use crate::error::{Error, Result};
use tangelo_core::DType;
use tangelo_formats::Bytes;
use tangelo_ops::matmul::{Weight, matmul};
use tangelo_ops::{Cx, Mat, View};

/// y = x · Wᵀ · scale (+ bias), with W as it lies in the file.
#[derive(Clone, Debug)]
pub struct Linear {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Bytes,
    scale: f32,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `rows` outputs and `cols` inputs. `name` is for messages; `scale` multiplies the stored elements (FP8).
    pub fn new(
        name: &str,
        dtype: DType,
        [rows, cols]: [usize; 2],
        bytes: Bytes,
        scale: f32,
        bias: Option<Vec<f32>>,
    ) -> Result<Linear> {
        let checked = Weight::new(dtype, rows, cols, &bytes, scale);
        checked.map_err(|source| Error::Weight { name: name.to_string(), source })?;
        Ok(Linear { dtype, rows, cols, bytes, scale, bias })
    }

    /// The weight as the operations take it, (rows, cols).
    pub fn weight(&self) -> Weight<'_> {
        Weight::new(self.dtype, self.rows, self.cols, &self.bytes, self.scale)
            .expect("checked by Linear::new")
    }

    /// (l, cols) → (l, rows).
    pub fn apply(&self, cx: &Cx, x: View<'_>) -> Mat {
        matmul(cx, x, &self.weight(), self.bias.as_deref())
    }
}
