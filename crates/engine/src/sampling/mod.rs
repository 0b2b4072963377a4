//! From logits to the next token.
//!
//! The steps, in this order (that of Hugging Face's `generate`, with OpenAI's penalties beside the repetition
//! penalty; llama.cpp differs in applying min-p before the temperature by default):
//!
//! 1. penalties (`history.rs`) and logit bias change the logits;
//! 2. temperature 0: the token with the largest logit, the smallest id among equals. Nothing below applies;
//! 3. temperature divides the logits;
//! 4. top-k keeps the k largest; of equal logits the smaller id comes first;
//! 5. top-p keeps the fewest of the most probable tokens whose probabilities, out of what top-k left, reach p;
//! 6. min-p keeps the tokens at least p times as probable as the most probable one;
//! 7. one of the rest is drawn in proportion to its probability.
//!
//! Log-probabilities are those of the model: the log-softmax of the logits as they came, before step 1.
//!
//! All arithmetic is the program's own (`exp.rs`, sums are in f64 in a fixed order, `sum.rs`, the
//! generator is xoshiro256++, `random.rs`), so one seed gives one answer on every machine that computes the same logits.

mod exp;
mod filters;
mod history;
mod logprobs;
mod params;
mod peaks;
mod random;
mod sampler;
mod sum;
#[cfg(test)]
mod tests;

pub use logprobs::Logprobs;
pub use params::SamplingParams;
pub use sampler::{Sampled, Sampler};
