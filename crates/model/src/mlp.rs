//! MLP mixer: down(relu(up(x))²), without a gate (So et al. 2021, arXiv 2109.08668).

use crate::error::Result;
use crate::linear::Linear;
use crate::load::Loader;
use tangelo_ops::elementwise::relu2;
use tangelo_ops::{Cx, Mat, View};

/// The mixer of a `-` block, and an expert of an `E` block.
#[derive(Debug)]
pub(crate) struct Mlp {
    up_proj: Linear,   // d → f
    down_proj: Linear, // f → d
}

impl Mlp {
    pub(crate) fn load(at: &Loader<'_>, d: usize, f: usize, bias: bool) -> Result<Mlp> {
        Ok(Mlp {
            up_proj: at.linear("up_proj", [f, d], bias)?,
            down_proj: at.linear("down_proj", [d, f], bias)?,
        })
    }

    /// (l, d) → (l, d).
    pub(crate) fn forward(&self, cx: &Cx, u: View<'_>) -> Mat {
        let mut x = self.up_proj.apply(cx, u); // (l, f)
        relu2(cx, &mut x);
        self.down_proj.apply(cx, x.view())
    }
}
