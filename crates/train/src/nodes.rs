//! The operations of the model on a tape.

use std::ops::Range;
use std::rc::Rc;

use tangelo_core::TokenId;
use tangelo_ops::attention::{KvCache, KvType, append, attention, attention_backward};
use tangelo_ops::cross_entropy::{Target, cross_entropy};
use tangelo_ops::elementwise::{add, copy, gather_rows, relu2, relu2_backward};
use tangelo_ops::mamba2::{Mixer, MixerGradients, mamba2_backward, mamba2_kept};
use tangelo_ops::matmul::{Factor, Packed, add_product, matmul, product};
use tangelo_ops::rms_norm::{rms_norm, rms_norm_backward};
use tangelo_ops::ssd::SsdGradients;
use tangelo_ops::{Mat, Place, Vector};

use crate::params::{Gradients, Lookup, ParamId, Params};
use crate::tape::{Pass, Tape, Var};

/// Rows whose logits are in memory at one time.
const LOGIT_ROWS: usize = 256;

/// The parameters of a mixer's middle part.
#[derive(Clone, Copy, Debug)]
pub struct MixerIds {
    /// Taps, (k, c).
    pub conv: ParamId,
    /// (c), if the convolution has one.
    pub conv_bias: Option<ParamId>,
    /// (h).
    pub A_log: ParamId,
    /// (h).
    pub D: ParamId,
    /// (h).
    pub dt_bias: ParamId,
    /// (i).
    pub norm: ParamId,
    /// (h, p, n), if sequences begin with a state that is learned.
    pub initial: Option<ParamId>,
}

impl<'t> Tape<'t> {
    /// Rows of a table. Their gradient is kept until it is completed.
    pub fn embed(&self, table: ParamId, ids: Rc<[TokenId]>) -> Var {
        let param = self.params.get(table);
        let [_, d] = param.matrix();
        let mut rows = self.cx.mat(ids.len(), d);
        for (t, &id) in ids.iter().enumerate() {
            rows.row_mut(t).copy_from_slice(&param.data[id as usize * d..][..d]);
        }
        self.push(rows, move |dy, pass| {
            pass.gradients.look_up(Lookup { table, ids, rows: dy.data().to_vec() });
        })
    }

    /// x · Wᵀ (+ bias).
    pub fn linear(&self, x: Var, weight: ParamId, bias: Option<ParamId>) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(x));
        let bias_vector = bias.map(|bias| Vector::from(params.get(bias).data.clone()));
        let y = matmul(cx, input.view(), params.packed(cx, weight), bias_vector.as_ref());
        self.push(y, move |dy, pass| {
            if let Some(gradient) = bias.and_then(|bias| pass.gradients.of_mut(bias)) {
                for t in 0..dy.rows() {
                    gradient.iter_mut().zip(dy.row(t)).for_each(|(sum, d)| *sum += d);
                }
            }
            pass.give_product(params, (x, &input), weight, &dy);
        })
    }

    /// Root-mean-square norm.
    pub fn rms_norm(&self, x: Var, weight: ParamId, eps: f32) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(x));
        let w = Vector::from(params.get(weight).data.clone());
        let y = rms_norm(cx, input.view(), &w, eps);
        self.push(y, move |dy, pass| {
            let mut dw = pass.gradients.take(weight, w.len());
            let dx = rms_norm_backward(cx, input.view(), &w, eps, dy.view(), &mut dw);
            pass.gradients.put(weight, dw, params.get(weight).is_trained);
            pass.give(x, dx);
        })
    }

    /// x + y.
    pub fn add(&self, x: Var, y: Var) -> Var {
        let cx = self.cx;
        let mut sum = copy(cx, &self.value(x));
        add(cx, &mut sum, &self.value(y));
        self.push(sum, move |d, pass| {
            pass.give(y, copy(cx, &d));
            pass.give(x, d);
        })
    }

    /// x · (s·W)ᵀ.
    ///
    /// # Panics
    /// If the system has no memory for the scaled weight.
    pub fn linear_scaled(&self, x: Var, weight: ParamId, s: f32) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(x));
        let param = params.get(weight);
        let [rows, cols] = param.matrix();
        let scaled: Vec<f32> = param.data.iter().map(|w| w * s).collect();
        let scaled = Packed::of_floats(cx, rows, cols, &scaled).expect("memory for a weight beside itself");
        self.push(matmul(cx, input.view(), &scaled, None), move |mut dy, pass| {
            dy.data_mut().iter_mut().for_each(|d| *d *= s);
            pass.give_product(params, (x, &input), weight, &dy);
        })
    }

    /// Every column j times its factor, m over its length, plus its bias; the lengths are held fixed.
    pub fn scale_columns(&self, x: Var, m: ParamId, lengths: Vec<f32>, bias: Option<ParamId>) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(x));
        // A row of zeros stays one.
        let over = |x: f32, length: f32| if length > 0.0 { x / length } else { 0.0 };
        let factors: Vec<f32> =
            params.get(m).data.iter().zip(&lengths).map(|(m, length)| over(*m, *length)).collect();
        let bias_data = bias.map(|bias| params.get(bias).data.clone());
        let mut y = copy(cx, &input);
        for t in 0..y.rows() {
            y.row_mut(t).iter_mut().zip(&factors).for_each(|(y, f)| *y *= f);
            if let Some(bias) = &bias_data {
                y.row_mut(t).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        self.push(y, move |mut d, pass| {
            if let Some(gradient) = pass.gradients.of_mut(m) {
                for t in 0..d.rows() {
                    let terms = d.row(t).iter().zip(input.row(t)).zip(&lengths);
                    gradient
                        .iter_mut()
                        .zip(terms)
                        .for_each(|(sum, ((d, x), length))| *sum += over(d * x, *length));
                }
            }
            if let Some(gradient) = bias.and_then(|bias| pass.gradients.of_mut(bias)) {
                for t in 0..d.rows() {
                    gradient.iter_mut().zip(d.row(t)).for_each(|(sum, d)| *sum += d);
                }
            }
            for t in 0..d.rows() {
                d.row_mut(t).iter_mut().zip(&factors).for_each(|(d, f)| *d *= f);
            }
            pass.give(x, d);
        })
    }

    /// relu(x)².
    pub fn relu2(&self, x: Var) -> Var {
        let (cx, input) = (self.cx, self.value(x));
        let mut y = copy(cx, &input);
        relu2(cx, &mut y);
        self.push(y, move |mut d, pass| {
            relu2_backward(cx, &input, &mut d);
            pass.give(x, d);
        })
    }

    /// Causal attention within each sequence.
    pub fn attention(&self, [q, k, v]: [Var; 3], kv_heads: usize, sequences: Rc<[Range<usize>]>) -> Var {
        let cx = self.cx;
        let inputs = [self.value(q), self.value(k), self.value(v)];
        let [of_q, of_k, of_v] = inputs.each_ref().map(|input| input.view());
        let head_dim = of_k.cols() / kv_heads;
        let new_cache = |_| KvCache::new(kv_heads, head_dim, KvType::F32);
        let mut caches: Vec<KvCache> = sequences.iter().map(new_cache).collect();
        append(of_k, of_v, sequences.iter().cloned().zip(&mut caches));
        let y = attention(cx, of_q, sequences.iter().cloned().zip(&caches));
        drop(caches);
        self.push(y, move |dy, pass| {
            let views = inputs.each_ref().map(|input| input.view());
            let [dq, dk, dv] = attention_backward(cx, views, dy.view(), kv_heads, &sequences);
            pass.give(q, dq);
            pass.give(k, dk);
            pass.give(v, dv);
        })
    }

    /// What lies between the projections of a Mamba-2 mixer.
    pub fn mamba2(&self, zxBCdt: Var, ids: MixerIds, mixer: Rc<Mixer>, sequences: Rc<[Range<usize>]>) -> Var {
        let (cx, params, input) = (self.cx, self.params, self.value(zxBCdt));
        let initial = ids.initial.map(|id| Vector::from(params.get(id).data.clone()));
        let state = |_| (mixer.first_conv_state(), mixer.first_state(initial.as_ref()));
        let mut states: Vec<(Vector, Vector)> = sequences.iter().map(state).collect();
        let with_states = sequences.iter().cloned().zip(&mut states);
        let with_states = with_states.map(|(rows, (conv, ssm))| (rows, conv, ssm));
        let (y, between) = mamba2_kept(cx, &mixer, input.view(), with_states);
        drop(states);
        self.push(y, move |dy, pass| {
            let learned = [
                Some(ids.conv),
                ids.conv_bias,
                Some(ids.A_log),
                Some(ids.D),
                Some(ids.dt_bias),
                Some(ids.norm),
            ];
            let len = |id: ParamId| params.get(id).data.len();
            let conv_channels = len(ids.conv) / params.get(ids.conv).shape[2];
            let mut taken = learned.map(|id| match id {
                Some(id) => pass.gradients.take(id, len(id)),
                None => vec![0.0; conv_channels],
            });
            let mut dinitial = ids.initial.map(|id| pass.gradients.take(id, len(id)));
            let [dconv, dconv_bias, dA, dD, ddt_bias, dnorm] = &mut taken;
            let gradients =
                MixerGradients { dconv, dconv_bias, ssd: SsdGradients { dA, dD, ddt_bias }, dnorm };
            let first = initial.as_ref().zip(dinitial.as_deref_mut());
            let input = (input.view(), &between);
            let dx = mamba2_backward(cx, &mixer, input, &sequences, dy.view(), gradients, first);
            let all = learned.into_iter().zip(taken).chain([(ids.initial, dinitial.unwrap_or_default())]);
            for (id, gradient) in all {
                if let Some(id) = id {
                    pass.gradients.put(id, gradient, params.get(id).is_trained);
                }
            }
            pass.give(zxBCdt, dx);
        })
    }

    /// The losses, in nats, of the targets that weigh something, and the gradient of `x`; the gradient of the weight is
    /// added. All logits are never in memory at one time. Without `gradients` nothing but the losses is computed.
    pub fn linear_cross_entropy(
        &self,
        x: Var,
        weight: ParamId,
        targets: &[Target],
        mut gradients: Option<&mut Gradients>,
    ) -> (Vec<f32>, Mat) {
        let (cx, input, param) = (self.cx, self.value(x), self.params.get(weight));
        let [vocabulary, d] = param.matrix();
        assert_eq!(targets.len(), input.rows(), "linear_cross_entropy: one target per row");
        let taught: Vec<usize> = (0..targets.len()).filter(|&t| targets[t].weight != 0.0).collect();
        let mut dx = cx.zeros_at(Place::Host, if gradients.is_some() { input.rows() } else { 0 }, d);
        let mut losses = Vec::with_capacity(taught.len());
        for rows in taught.chunks(LOGIT_ROWS) {
            let x = gather_rows(cx, input.view(), rows.iter().copied());
            let targets: Vec<Target> = rows.iter().map(|&t| targets[t]).collect();
            let mut logits = matmul(cx, x.view(), self.params.packed(cx, weight), None);
            losses.extend(cross_entropy(cx, &mut logits, &targets));
            let Some(gradients) = &mut gradients else { continue };
            let dlogits = Factor::from(&logits);
            if let Some(gradient) = gradients.of_mut(weight) {
                add_product(cx, dlogits.transposed(), Factor::from(&x), gradient);
            }
            let part = product(cx, dlogits, Factor::new(&param.data, vocabulary, d));
            for (from, &to) in rows.iter().enumerate() {
                dx.row_mut(to).copy_from_slice(part.row(from));
            }
        }
        (losses, dx)
    }
}

impl Pass<'_> {
    /// The way back through x · Wᵀ.
    fn give_product(&mut self, params: &Params, (x, input): (Var, &Mat), weight: ParamId, dy: &Mat) {
        if let Some(gradient) = self.gradients.of_mut(weight) {
            add_product(self.cx, Factor::from(dy).transposed(), Factor::from(input), gradient);
        }
        let param = params.get(weight);
        let [rows, cols] = param.matrix();
        let dx = product(self.cx, Factor::from(dy), Factor::new(&param.data, rows, cols));
        self.give(x, dx);
    }
}
