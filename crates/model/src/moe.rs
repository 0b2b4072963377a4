//! Mixture-of-experts mixer of the larger siblings: sigmoid router, relu² experts, one shared expert, and for the
//! largest a latent projection around the routed experts (arXiv 2512.20848, section 2; 2512.20856).
//!
//! y = fc2(Σ_e w_e · expert_e(fc1(x))) + shared(x), the sum over the token's experts by increasing index,
//! each term by a fused multiply-add, from zero. fc1 and fc2 are the identity where there is no latent.

use crate::error::Result;
use crate::linear::Linear;
use crate::load::Loader;
use crate::mlp::Mlp;
use tangelo_formats::config::MoeConfig;
use tangelo_ops::elementwise::{Target, add, add_scaled_rows, gather_rows};
use tangelo_ops::route::{Router, route};
use tangelo_ops::{Cx, Mat, Place};

/// The mixer of an `E` block.
#[derive(Debug)]
pub(crate) struct Moe {
    gate: Linear, // d → e
    router: Router,
    latent: Option<Latent>,
    experts: Vec<Mlp>,   // latent or d → same
    shared_experts: Mlp, // d → d
}

/// Projections around the routed experts.
#[derive(Debug)]
struct Latent {
    fc1_latent_proj: Linear, // d → latent
    fc2_latent_proj: Linear, // latent → d
}

impl Moe {
    pub(crate) fn load(at: &Loader<'_>, d: usize, config: &MoeConfig, bias: bool) -> Result<Moe> {
        let e = config.num_experts;
        let router = Router {
            bias: at.at("gate").host_floats("e_score_correction_bias", &[e])?,
            num_chosen: config.num_experts_per_token,
            num_groups: config.num_groups,
            num_groups_kept: config.num_groups_kept,
            normalise: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
        };
        let latent = match config.latent_size {
            None => None,
            Some(width) => Some(Latent {
                fc1_latent_proj: at.linear("fc1_latent_proj", [width, d], bias)?,
                fc2_latent_proj: at.linear("fc2_latent_proj", [d, width], bias)?,
            }),
        };
        let width = config.latent_size.unwrap_or(d);
        let expert = |index| Mlp::load(&at.at("experts").at(index), width, config.intermediate_size, false);
        Ok(Moe {
            gate: at.linear("gate", [e, d], false)?,
            router,
            latent,
            experts: (0..e).map(expert).collect::<Result<_>>()?,
            shared_experts: Mlp::load(&at.at("shared_experts"), d, config.shared_intermediate_size, bias)?,
        })
    }

    /// (l, d) → (l, d).
    pub(crate) fn forward(&self, cx: &Cx, u: &Mat) -> Mat {
        let logits = cx.mat_to(Place::Host, self.gate.apply(cx, u.view())); // (l, e)
        let projected = self.latent.as_ref().map(|latent| latent.fc1_latent_proj.apply(cx, u.view()));
        let mut y = self.routed(cx, &logits, projected.as_ref().unwrap_or(u)); // (l, latent or d)
        if let Some(latent) = &self.latent {
            y = latent.fc2_latent_proj.apply(cx, y.view());
        }
        add(cx, &mut y, &self.shared_experts.forward(cx, u.view()));
        y
    }

    /// Each expert runs once, on the tokens that chose it; in increasing order, so that every token's sum is. Experts are
    /// chosen on the host, wherever they are.
    fn routed(&self, cx: &Cx, logits: &Mat, x: &Mat) -> Mat {
        let mut tokens: Vec<Vec<Target>> = vec![Vec::new(); self.experts.len()];
        for t in 0..x.rows() {
            for chosen in route(&self.router, logits.row(t)) {
                tokens[chosen.expert].push(Target { row: t, weight: chosen.weight });
            }
        }
        let mut y = cx.zeros_at(x.place(), x.rows(), x.cols());
        for (expert, tokens) in self.experts.iter().zip(&tokens).filter(|(_, tokens)| !tokens.is_empty()) {
            let rows = tokens.iter().map(|target| target.row);
            let out = expert.forward(cx, gather_rows(cx, x.view(), rows).view());
            add_scaled_rows(&mut y, tokens, out.view());
        }
        y
    }
}
