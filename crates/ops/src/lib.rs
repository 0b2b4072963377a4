//! The closed set of operations the Nemotron-H family needs, each with a contract, a scalar reference that
//! *is* the definition, and fast twins that give the same bits.

#![allow(non_snake_case)] // A, B, C, D are the names of the Mamba papers.

pub mod attention;
pub mod causal_conv;
pub mod cross_entropy;
pub mod cuda;
pub mod device;
pub mod dispatch;
pub mod elementwise;
pub mod embedding;
pub mod lanes;
pub mod logits;
pub mod mamba2;
pub mod math;
pub mod matmul;
pub mod probe;
pub mod quant;
pub mod quantise_rows;
pub mod rms_norm;
pub mod rms_norm_gated;
pub mod route;
mod sequences;
pub mod ssd;
#[cfg(test)]
pub(crate) mod testing;
mod words;

pub use cuda::{Gpu, GpuError};
pub use device::{Cx, CxError, Mat, Place, Vector, View, ViewMut};
pub use dispatch::Simd;
