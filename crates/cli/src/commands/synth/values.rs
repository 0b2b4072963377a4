//! Weights as a closed formula, so that any program in any language can make the same model.
//!
//! ```text
//! stream(name) = FNV-1a, 64 bit, of "<model>/<tensor>"
//! z_i          = splitmix64(stream + (i + 1) · 0x9E3779B97F4A7C15)
//! u_i          = ((z_i >> 40) + 0.5) / 2^23 − 1              in (−1, 1), exact in f32 and f64
//! value_i      = centre + half width · u_i                   in f64, rounded to f32,
//!                                                            then to BF16 unless the parameter is kept in f32
//! ```
//!
//! Any element can be computed without those before it, so tensors are made in pieces and by many threads. The
//! twin in Python is `fixtures/gen/detweights.py`; `detweights_vectors.json` beside it holds test vectors.
//! Rounding to BF16 is part of the value, whatever type it is stored as: a model has the same weights in every
//! format that does not quantise them.

use std::ops::Range;

use tangelo_core::float::{bf16_to_f32, f32_to_bf16};

use crate::weights::Elements;

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01B3;
/// 2^64 divided by the golden ratio, the increment of splitmix64 (Steele, Lea and Flood 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// 64-bit FNV-1a hash of a text.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

/// Draw `i` of a stream.
pub fn draw(stream: u64, i: u64) -> u64 {
    let z = stream.wrapping_add(i.wrapping_add(1).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A draw as a number in (−1, 1).
pub fn uniform(z: u64) -> f64 {
    ((z >> 40) as f64 + 0.5) / (1u64 << 23) as f64 - 1.0
}

/// The elements of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// Hash of the tensor's name.
    pub stream: u64,
    /// Mean of the elements.
    pub centre: f64,
    /// Largest distance from it; the standard deviation is this divided by √3.
    pub half_width: f64,
    /// Whether the elements are rounded to BF16.
    pub round_to_bf16: bool,
}

impl Elements for Values {
    fn fill(&self, range: Range<u64>, out: &mut [f32]) {
        for (i, out) in range.zip(out) {
            let x = (self.centre + self.half_width * uniform(draw(self.stream, i))) as f32;
            *out = if self.round_to_bf16 { bf16_to_f32(f32_to_bf16(x)) } else { x };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/gen/detweights_vectors.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("the vectors")).expect("JSON")
    }

    fn hex(value: &Value) -> u64 {
        let text = value.as_str().expect("a string").trim_start_matches("0x");
        u64::from_str_radix(text, 16).expect("hexadecimal")
    }

    #[test]
    fn hashes_and_draws_are_those_of_the_vectors() {
        let vectors = vectors();
        for (text, hash) in vectors["fnv1a64"].as_object().expect("hashes") {
            assert_eq!(fnv1a64(text), hex(hash), "{text}");
        }
        let stream = fnv1a64("tiny/backbone.embeddings.weight");
        let raw = vectors["raw64 of tiny/backbone.embeddings.weight"].as_array().expect("draws");
        let uniforms = vectors["uniform"].as_array().expect("uniform draws");
        assert!(raw.len() >= 4 && raw.len() == uniforms.len());
        for ((i, raw), u) in (0..).zip(raw).zip(uniforms) {
            assert_eq!(draw(stream, i), hex(raw));
            assert_eq!(Some(uniform(draw(stream, i))), u.as_f64());
        }
    }

    #[test]
    fn values_are_those_of_the_vectors() {
        let vectors = vectors();
        let tensors = vectors["first_values"].as_object().expect("tensors");
        assert!(tensors.len() > 5);
        for (name, tensor) in tensors {
            let values = Values {
                stream: fnv1a64(name),
                centre: tensor["center"].as_f64().expect("a centre"),
                half_width: tensor["half_width"].as_f64().expect("a half width"),
                round_to_bf16: tensor["f32"] == false,
            };
            let expected = tensor["values"].as_array().expect("values");
            let mut found = vec![0.0; expected.len()];
            values.fill(0..expected.len() as u64, &mut found);
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(Some(f64::from(*found)), expected.as_f64(), "{name}");
            }
        }
    }

    #[test]
    fn a_piece_is_the_same_as_in_the_whole() {
        let values = Values { stream: 7, centre: 1.0, half_width: 0.5, round_to_bf16: false };
        let (mut whole, mut piece) = ([0.0; 100], [0.0; 30]);
        values.fill(0..100, &mut whole);
        values.fill(41..71, &mut piece);
        assert_eq!(whole[41..71], piece);
    }
}
