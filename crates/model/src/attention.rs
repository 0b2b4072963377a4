//! Grouped-query attention mixer (Ainslie et al. 2023, arXiv 2305.13245), causal, without any positional encoding
//! and without biases.

use crate::error::Result;
use crate::linear::Linear;
use crate::load::Loader;
use crate::model::Batch;
use tangelo_formats::config::AttentionConfig;
use tangelo_ops::attention::{append, attention};
use tangelo_ops::{Cx, Mat};

/// The mixer of a `*` block.
#[derive(Debug)]
pub(crate) struct Attention {
    q_proj: Linear, // d → H·D
    k_proj: Linear, // d → K·D
    v_proj: Linear, // d → K·D
    o_proj: Linear, // H·D → d
}

impl Attention {
    pub(crate) fn load(at: &Loader<'_>, d: usize, config: &AttentionConfig) -> Result<Attention> {
        Ok(Attention {
            q_proj: at.linear("q_proj", [config.q_size(), d], false)?,
            k_proj: at.linear("k_proj", [config.kv_size(), d], false)?,
            v_proj: at.linear("v_proj", [config.kv_size(), d], false)?,
            o_proj: at.linear("o_proj", [d, config.q_size()], false)?,
        })
    }

    /// (l, d) → (l, d), appending to the cache of every sequence of the batch.
    pub(crate) fn forward(&self, cx: &Cx, u: &Mat, batch: &mut Batch<'_, '_>, layer: usize) -> Mat {
        let q = self.q_proj.apply(cx, u.view()); // (l, H·D)
        let k = self.k_proj.apply(cx, u.view()); // (l, K·D)
        let v = self.v_proj.apply(cx, u.view()); // (l, K·D)
        append(k.view(), v.view(), batch.attention(layer));
        let caches = batch.attention(layer).map(|(rows, cache)| (rows, &*cache));
        let y = attention(cx, q.view(), caches);
        self.o_proj.apply(cx, y.view())
    }
}
