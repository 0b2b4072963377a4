//! What a cache of f16 costs: logits beside those of the same model with a cache of f32.

use crate::common::{Cases, cx, divergence, load, logits};
use tangelo_ops::attention::KvType;

/// Mean KL divergence allowed. Measured: 2e-8 to 6e-8 on these models.
const MEAN_KL: f64 = 1e-6;
/// Largest difference of a logit allowed.
const LOGIT: f32 = 2e-2;

#[test]
fn a_cache_of_f16_changes_little_and_something() {
    let cx = cx();
    for fixture in ["tiny", "odd", "moe", "moe_latent"] {
        let ids = Cases::load(fixture).prompt(257);
        let (want, wide) = logits(&load(fixture), &cx, &ids);
        let (got, narrow) = logits(&load(fixture).with_kv_type(KvType::F16), &cx, &ids);
        let kl =
            |t: usize| divergence(&want.row(t).iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), got.row(t));
        let mean = (0..ids.len()).map(kl).sum::<f64>() / ids.len() as f64;
        let largest = want.data().iter().zip(got.data()).map(|(w, g)| (w - g).abs()).fold(0.0, f32::max);
        println!("{fixture}: mean KL {mean:.2e}, largest difference of a logit {largest:.2e}");
        assert!(mean <= MEAN_KL && largest <= LOGIT, "{fixture}: {mean:e}, {largest:e}");
        assert!(largest > 0.0, "{fixture}: rounding shows somewhere");
        assert!(narrow.bytes() < wide.bytes(), "{fixture}");
    }
}
