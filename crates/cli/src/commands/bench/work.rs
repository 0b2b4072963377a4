//! What a model has to do per token: numbers multiplied and bytes read, from the shapes and types of its weights.
//!
//! Only matrices count: they are all but a thousandth of the arithmetic and of the bytes. The embedding is a look-up.
//! Of routed experts a token visits a part, and n tokens visit on average e·(1 − (1 − k/e)ⁿ) of the e experts when
//! each chooses k of them evenly.
//!
//! ```text
//! prefill of n tokens:      2 · (n · body + head) operations; only the last token meets the output matrix
//! decode step of b:         body + head read once, b · (2 · state + keys and values before it)
//! ```

use anyhow::Result;
use tangelo_formats::Checkpoint;
use tangelo_model::State;
use tangelo_ops::attention::KvType;

/// A share of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Numbers.
    pub elements: u64,
    /// Those stored as plain floats.
    pub float_elements: u64,
    /// Bytes as they lie in the file.
    pub bytes: u64,
}

/// What there is to multiply with and to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Matrices that every token meets.
    body: Share,
    /// Those of all routed experts.
    routed: Share,
    /// The output matrix.
    head: Share,
    /// Routed experts of a layer, and how many a token visits; (1, 1) if there are none.
    experts: (usize, usize),
    /// Bytes of the recurrent state of a sequence.
    pub state_bytes: u64,
    /// Bytes of keys and values per position.
    pub kv_bytes_per_token: u64,
}

impl Work {
    /// Of an opened model.
    ///
    /// # Errors
    /// If a weight has a type that cannot be read.
    pub fn of(checkpoint: &Checkpoint, kv_type: KvType) -> Result<Work> {
        let config = checkpoint.config();
        let (mut body, mut routed, mut head) = (Share::default(), Share::default(), Share::default());
        let is_matrix = |shape: &[usize]| shape.len() == 2;
        let embedding = "backbone.embeddings.weight";
        for spec in config.tensors().iter().filter(|spec| is_matrix(&spec.shape) && spec.name != embedding) {
            let share = match spec.name.as_str() {
                "lm_head.weight" => &mut head,
                name if name.contains(".mixer.experts.") => &mut routed,
                _ => &mut body,
            };
            share.add(checkpoint, &spec.name)?;
        }
        if config.tie_word_embeddings {
            let own = checkpoint.find("lm_head.weight")?;
            head.add(checkpoint, if own.is_some() { "lm_head.weight" } else { embedding })?;
        }
        Ok(Work {
            body,
            routed,
            head,
            experts: config.moe.as_ref().map_or((1, 1), |moe| (moe.num_experts, moe.num_experts_per_token)),
            state_bytes: State::bytes_fixed(config) as u64,
            kv_bytes_per_token: State::bytes_per_token(config, kv_type) as u64,
        })
    }

    /// Multiplications and additions per token of a prefill of `tokens` tokens.
    pub fn prefill_ops(&self, tokens: usize) -> f64 {
        let (experts, visited) = self.experts;
        let routed = self.routed.elements as f64 * visited as f64 / experts as f64;
        2.0 * (self.body.elements as f64 + routed + self.head.elements as f64 / tokens.max(1) as f64)
    }

    /// Bytes of weights that a step of `batch` sequences reads.
    pub fn weight_bytes(&self, batch: usize) -> f64 {
        let (experts, visited) = self.experts;
        let idle = (1.0 - visited as f64 / experts as f64).powf(batch as f64);
        self.body.bytes as f64 + self.head.bytes as f64 + self.routed.bytes as f64 * (1.0 - idle)
    }

    /// Bytes that a step of `batch` sequences moves when each attends to `positions` positions: weights once, keys
    /// and values read, recurrent states read and written.
    pub fn step_bytes(&self, batch: usize, positions: f64) -> f64 {
        let sequence = 2.0 * self.state_bytes as f64 + positions * self.kv_bytes_per_token as f64;
        self.weight_bytes(batch) + batch as f64 * sequence
    }

    /// Whether most of the arithmetic is on plain floats, so that the f32 rate is what limits it.
    pub fn is_float(&self) -> bool {
        let of = |get: fn(&Share) -> u64| get(&self.body) + get(&self.routed) + get(&self.head);
        2 * of(|share| share.float_elements) > of(|share| share.elements)
    }
}

impl Share {
    fn add(&mut self, checkpoint: &Checkpoint, name: &str) -> Result<()> {
        let tensor = checkpoint.tensor(name)?;
        let elements = tensor.num_elements() as u64;
        self.elements += elements;
        self.float_elements += if tensor.dtype.is_quantised() { 0 } else { elements };
        self.bytes += tensor.bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn work(fixture: &str) -> Work {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
        Work::of(&Checkpoint::open(&path).expect("a fixture"), KvType::F32).expect("its types can be read")
    }

    /// M-M*-M-*, 64 wide: heads of Mamba 24 × 8, state 16, 2 groups; attention 4 × 24 on 2; MLP 160; 512 tokens.
    #[test]
    fn the_matrices_of_the_tiny_model() {
        let work = work("tiny");
        let mamba = 64 * (192 + (192 + 2 * 2 * 16) + 24) + 192 * 64;
        let attention = 64 * 96 + 2 * 64 * 48 + 96 * 64;
        let mlp = 2 * 64 * 160;
        let (body, head) = (3 * mamba + 2 * attention + 3 * mlp, 512 * 64);
        assert_eq!(work.prefill_ops(1), 2.0 * f64::from(body + head));
        assert_eq!(work.prefill_ops(64), 2.0 * (f64::from(body) + f64::from(head) / 64.0));
        assert_eq!(work.weight_bytes(1), 2.0 * f64::from(body + head), "BF16");
        assert_eq!(work.weight_bytes(8), work.weight_bytes(1), "read once for all");
        let states = f64::from(3 * 4 * (192 * 16 + 3 * (192 + 64)));
        let positions = f64::from(2 * 2 * 48 * 4);
        assert_eq!(work.step_bytes(2, 10.0), work.weight_bytes(1) + 2.0 * (2.0 * states + 10.0 * positions));
        assert!(work.is_float());
    }

    #[test]
    fn quantised_weights_are_smaller_and_not_floats() {
        let (plain, quantised) = (work("tiny"), work("quantised/tiny-Q8_0.gguf"));
        assert_eq!(plain.prefill_ops(8), quantised.prefill_ops(8));
        assert_eq!(quantised.weight_bytes(1) * 64.0, plain.weight_bytes(1) * 34.0);
        assert!(!quantised.is_float());
    }

    #[test]
    fn a_token_meets_some_of_the_experts_and_many_tokens_nearly_all() {
        let work = work("moe");
        let (experts, visited) = work.experts;
        let (all, routed) = (work.body.bytes + work.head.bytes + work.routed.bytes, work.routed.bytes as f64);
        assert!(experts > visited && routed > 0.0);
        let idle = |batch| (all as f64 - work.weight_bytes(batch)) / routed;
        let chance = 1.0 - visited as f64 / experts as f64;
        assert!((idle(1) - chance).abs() < 1e-9 && (idle(2) - chance * chance).abs() < 1e-9);
        assert!(idle(1000) < 1e-9);
    }
}
