//! Which type each tensor of a GGUF file gets: the mixtures of llama.cpp's quantiser.
//!
//! A mixture is one type for most matrices and exceptions for those that suffer most: the output matrix, the value
//! projection, the output of attention and the last matrix of an MLP. The rules are those of
//! `llama_tensor_get_type_impl` in llama.cpp's `src/llama-quant.cpp` (without an importance matrix). Vectors, norms,
//! the convolution and the router stay F32 as its converter leaves them.
//!
//! Two consequences for this family are easily missed. Rows of 3136 elements are no whole blocks of 256, so most of
//! the 4B's "Q4_K_M" file is Q5_0 (see [`fallback`]). And the count that decides which MLPs are "early" or "late" is
//! the number of all layers, while the ordinal compared with it counts MLPs only.

use tangelo_core::DType;
use tangelo_formats::config::{BlockKind, Config};
use tangelo_formats::gguf::names::GgufTensor;

/// One exception of a mixture. The ordinal counts the tensors of one role from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// None: the type of the mixture.
    Base,
    /// This type.
    Always(DType),
    /// This type in the first and last eighth of the layers and in every third between.
    MoreBits(DType),
    /// This type for ordinals below a number.
    First(usize, DType),
    /// This type in the first 1/n of the layers, and the other elsewhere if there is one.
    FirstPart(usize, DType, Option<DType>),
    /// This type for ordinals below a number, the other elsewhere.
    FirstElse(usize, DType, DType),
    /// This type if the first layer is attention with at least four query heads per key head, else the other.
    Grouped(DType, Option<DType>),
}

/// A way to quantise a whole model.
#[derive(Debug, PartialEq, Eq)]
pub struct Mix {
    /// As given on the command line; llama.cpp's name in lower case.
    pub name: &'static str,
    /// `general.file_type` (`enum llama_ftype` in llama.cpp's `include/llama.h`).
    pub file_type: u32,
    /// Type of most matrices.
    pub base: DType,
    value: Rule,
    attention_output: Rule,
    down: Rule,
}

const fn plain(name: &'static str, file_type: u32, base: DType) -> Mix {
    Mix { name, file_type, base, value: Rule::Base, attention_output: Rule::Base, down: Rule::Base }
}

/// Every mixture, by increasing size.
pub const MIXES: [Mix; 19] = {
    use DType::*;
    use Rule::*;
    [
        Mix { value: Grouped(Q4K, None), down: FirstPart(8, Q4K, None), ..plain("q2_k_s", 21, Q2K) },
        Mix {
            value: Grouped(Q4K, Some(Q3K)),
            attention_output: Always(Q3K),
            down: Always(Q3K),
            ..plain("q2_k", 10, Q2K)
        },
        plain("q3_k_s", 11, Q3K),
        Mix {
            value: FirstElse(2, Q5K, Q4K),
            attention_output: Always(Q4K),
            down: FirstPart(16, Q5K, Some(Q4K)),
            ..plain("q3_k_m", 12, Q3K)
        },
        Mix {
            value: Always(Q5K),
            attention_output: Always(Q5K),
            down: Always(Q5K),
            ..plain("q3_k_l", 13, Q3K)
        },
        Mix { value: Grouped(Q5K, None), down: FirstPart(8, Q5K, None), ..plain("iq4_nl", 25, IQ4NL) },
        Mix { value: First(4, Q5K), down: FirstPart(8, Q5K, None), ..plain("q4_k_s", 14, Q4K) },
        plain("q4_0", 2, Q4_0),
        Mix { value: MoreBits(Q6K), down: MoreBits(Q6K), ..plain("q4_k_m", 15, Q4K) },
        plain("q4_1", 3, Q4_1),
        plain("q5_0", 8, Q5_0),
        plain("q5_k_s", 16, Q5K),
        Mix { value: MoreBits(Q6K), down: MoreBits(Q6K), ..plain("q5_k_m", 17, Q5K) },
        plain("q5_1", 9, Q5_1),
        plain("q6_k", 18, Q6K),
        plain("q8_0", 7, Q8_0),
        plain("f16", 1, F16),
        plain("bf16", 32, BF16),
        plain("f32", 0, F32),
    ]
};

/// The mixture of a name, ignoring case.
pub fn named(name: &str) -> Option<&'static Mix> {
    MIXES.iter().find(|mix| mix.name.eq_ignore_ascii_case(name))
}

impl Mix {
    /// The type of each tensor of [`tangelo_formats::gguf::names::from_config`], in its order.
    pub fn types(&self, config: &Config, tensors: &[GgufTensor]) -> Vec<DType> {
        let count = |what: &str| tensors.iter().filter(|t| t.name.contains(what)).count();
        let mut layers = Layers {
            mix: self,
            num_layers: config.blocks.len(),
            num_values: count("attn_v.weight"),
            num_experts: config.moe.as_ref().map_or(0, |moe| moe.num_experts),
            is_grouped: is_grouped(config),
            is_tied: config.tie_word_embeddings,
            values_seen: 0,
            downs_seen: 0,
        };
        tensors.iter().map(|tensor| layers.dtype(tensor)).collect()
    }
}

/// What llama.cpp's `n_gqa() >= 4` says: it looks at the first layer, which has no keys in most of this family.
fn is_grouped(config: &Config) -> bool {
    let a = &config.attention;
    config.blocks.first() == Some(&BlockKind::Attention) && a.num_heads >= 4 * a.num_kv_heads
}

/// The walk over the tensors of a model.
struct Layers<'a> {
    mix: &'a Mix,
    num_layers: usize,
    num_values: usize,
    num_experts: usize,
    is_grouped: bool,
    is_tied: bool,
    values_seen: usize,
    downs_seen: usize,
}

impl Layers<'_> {
    fn dtype(&mut self, tensor: &GgufTensor) -> DType {
        if !is_quantisable(tensor) {
            return DType::F32;
        }
        if !self.mix.base.is_quantised() {
            return self.mix.base;
        }
        let columns = tensor.shape.last().copied().unwrap_or(1);
        fallback(self.wanted(tensor, columns), columns)
    }

    /// The type by role, whether or not the rows are whole blocks of it.
    fn wanted(&mut self, tensor: &GgufTensor, columns: usize) -> DType {
        let (base, name) = (self.mix.base, tensor.name.as_str());
        // Models of eight experts get special treatment there, meant for Mixtral.
        let eight_experts = self.num_experts == 8;
        if name == "output.weight" || (self.is_tied && name == "token_embd.weight") {
            return match base {
                DType::Q8_0 => DType::Q8_0,
                _ if !columns.is_multiple_of(base.block_len()) => DType::Q8_0,
                _ => DType::Q6K,
            };
        }
        if name.contains("attn_v.weight") {
            self.values_seen += 1;
            let dtype = self.apply(self.mix.value, self.values_seen - 1, self.num_values);
            return if eight_experts { DType::Q8_0 } else { dtype };
        }
        if name.contains("attn_k.weight") && eight_experts {
            return DType::Q8_0;
        }
        if name.contains("attn_output.weight") {
            let small =
                matches!(self.mix.name, "q2_k" | "q3_k_s" | "q3_k_m" | "iq4_nl" | "q4_k_s" | "q4_k_m");
            return match (eight_experts, small) {
                (true, true) => DType::Q5K,
                (true, false) => base,
                (false, _) => self.apply(self.mix.attention_output, 0, self.num_layers),
            };
        }
        if name.contains("ffn_down") {
            self.downs_seen += 1;
            // With experts the layer itself is the ordinal.
            let ordinal = if self.num_experts > 1 { layer_of(name) } else { self.downs_seen - 1 };
            return self.apply(self.mix.down, ordinal, self.num_layers);
        }
        base
    }

    fn apply(&self, rule: Rule, ordinal: usize, count: usize) -> DType {
        let base = self.mix.base;
        match rule {
            Rule::Base => base,
            Rule::Always(dtype) => dtype,
            Rule::MoreBits(dtype) if has_more_bits(ordinal, count) => dtype,
            Rule::First(n, dtype) if ordinal < n => dtype,
            Rule::MoreBits(_) | Rule::First(..) => base,
            Rule::FirstPart(n, dtype, _) if ordinal < count / n => dtype,
            Rule::FirstPart(_, _, rest) => rest.unwrap_or(base),
            Rule::FirstElse(n, dtype, rest) => {
                if ordinal < n {
                    dtype
                } else {
                    rest
                }
            }
            Rule::Grouped(dtype, _) if self.is_grouped => dtype,
            Rule::Grouped(_, rest) => rest.unwrap_or(base),
        }
    }
}

/// The first and the last eighth of the layers, and every third of those between.
fn has_more_bits(ordinal: usize, count: usize) -> bool {
    let eighth = count / 8;
    ordinal < eighth || ordinal >= 7 * count / 8 || (ordinal - eighth) % 3 == 2
}

fn is_quantisable(tensor: &GgufTensor) -> bool {
    let name = tensor.name.as_str();
    let kept = ["_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d"];
    tensor.shape.len() > 1 && name.ends_with("weight") && !kept.iter().any(|part| name.contains(part))
}

fn layer_of(name: &str) -> usize {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The type to use instead where rows are no whole blocks: one with blocks of 32 and at least as many bits, or F16.
fn fallback(wanted: DType, columns: usize) -> DType {
    let fits = |dtype: DType| columns.is_multiple_of(dtype.block_len());
    if fits(wanted) {
        return wanted;
    }
    let narrower = match wanted {
        DType::Q2K | DType::Q3K => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        other => other,
    };
    if fits(narrower) { narrower } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tangelo_formats::config::shapes;
    use tangelo_formats::gguf::names;
    use tangelo_formats::gguf::types;
    use tangelo_formats::tensor::storage_bytes;

    use super::*;

    fn typed(shape: &str, mix: &str) -> Vec<(GgufTensor, DType)> {
        let config = shapes::named(shape).expect("a shape");
        let tensors = names::from_config(&config).expect("a GGUF model");
        let types = named(mix).expect("a mixture").types(&config, &tensors);
        tensors.into_iter().zip(types).collect()
    }

    /// The figures of the published file: NVIDIA-Nemotron3-Nano-4B-Q4_K_M.gguf.
    #[test]
    fn q4_k_m_of_the_4b_is_the_published_file() {
        let typed = typed("nemotron-3-nano-4b", "Q4_K_M");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, dtype) in &typed {
            *counts.entry(dtype.name()).or_default() += 1;
        }
        let expected = [("F32", 169), ("Q4_K", 33), ("Q5_0", 49), ("Q6_K", 9), ("Q8_0", 3)];
        assert_eq!(counts, expected.into());
        let bytes: usize =
            typed.iter().map(|(t, d)| storage_bytes(*d, &t.shape).expect("whole blocks")).sum();
        assert_eq!(bytes, 2_829_187_200);
        let dtype = |name: &str| typed.iter().find(|(t, _)| t.name == name).expect("the tensor").1;
        for layer in [12, 17] {
            assert_eq!(dtype(&format!("blk.{layer}.attn_v.weight")), DType::Q5_0);
        }
        for layer in [24, 32] {
            assert_eq!(dtype(&format!("blk.{layer}.attn_v.weight")), DType::Q8_0);
        }
        let downs: Vec<DType> =
            typed.iter().filter(|(t, _)| t.name.contains("ffn_down")).map(|(_, d)| *d).collect();
        for (ordinal, dtype) in downs.iter().enumerate() {
            let is_long = matches!(ordinal, 0..=4 | 7 | 10 | 13 | 16);
            assert_eq!(*dtype, if is_long { DType::Q6K } else { DType::Q4K }, "MLP {ordinal}");
        }
    }

    #[test]
    fn every_mixture_of_every_shape_has_whole_blocks() {
        for shape in shapes::NAMES {
            for mix in &MIXES {
                for (tensor, dtype) in typed(shape, mix.name) {
                    assert!(storage_bytes(dtype, &tensor.shape).is_some(), "{shape} {} {dtype}", tensor.name);
                }
            }
        }
    }

    #[test]
    fn the_file_type_is_that_of_the_medium_mixture_of_the_base() {
        for mix in MIXES.iter().filter(|mix| !mix.name.ends_with("_s") && !mix.name.ends_with("_l")) {
            assert_eq!(types::file_type_of(mix.base), Some(mix.file_type), "{}", mix.name);
        }
        for (i, mix) in MIXES.iter().enumerate() {
            assert!(MIXES[..i].iter().all(|m| m.name != mix.name && m.file_type != mix.file_type));
        }
    }

    #[test]
    fn small_mixtures_keep_more_of_what_suffers() {
        let typed = typed("nemotron-h-8b", "q3_k_m");
        let of = |what: &str| -> Vec<DType> {
            typed.iter().filter(|(t, _)| t.name.contains(what)).map(|(_, d)| *d).collect()
        };
        assert_eq!(of("attn_v.weight"), [DType::Q5K, DType::Q5K, DType::Q4K, DType::Q4K]);
        assert!(of("attn_output").iter().all(|d| *d == DType::Q4K));
        assert_eq!(of("ffn_down")[..4], [DType::Q5K, DType::Q5K, DType::Q5K, DType::Q4K]);
        assert!(of("ffn_up").iter().all(|d| *d == DType::Q3K));
        assert_eq!(of("output.weight").last(), Some(&DType::Q6K));
        assert_eq!(of("token_embd"), [DType::Q3K]);
    }
}
