//! What choosing a token asks of logits that lie on a device: a few numbers instead of the whole vocabulary.
//!
//! The largest of every [`CHUNK`] logits says which chunks can hold a candidate; only those are copied to the host.
//! Penalties and biases are applied before. All of it is comparing, copying and [`Change::apply`], so that what is chosen
//! does not depend on where it was computed.

mod cuda;
#[cfg(test)]
mod tests;

use crate::device::Mat;

/// Logits per chunk.
pub const CHUNK: usize = 64;

/// What happens to the logit of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Change {
    /// The token.
    pub token: u32,
    /// Divides positive logits and multiplies the others; 1 leaves them alone.
    pub repetition: f32,
    /// Subtracted then.
    pub penalty: f32,
    /// Added in the end.
    pub bias: f32,
}

impl Change {
    /// A change of nothing.
    pub fn none(token: u32) -> Change {
        Change { token, repetition: 1.0, penalty: 0.0, bias: 0.0 }
    }

    /// The changed logit.
    pub fn apply(&self, logit: f32) -> f32 {
        let logit = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        logit - self.penalty + self.bias
    }
}

/// A copy of `logits` (1, vocabulary) in the same place, with every change made. No two changes are of one token; those of
/// tokens outside the vocabulary do nothing.
pub fn change(logits: &Mat, changes: &[Change]) -> Mat {
    if let Some(buffer) = logits.buffer() {
        return cuda::change(buffer, logits.cols(), changes);
    }
    let mut changed = Mat::from_vec(1, logits.cols(), logits.data().to_vec());
    for change in changes {
        if let Some(logit) = changed.data_mut().get_mut(change.token as usize) {
            *logit = change.apply(*logit);
        }
    }
    changed
}

/// The largest of each chunk of `logits` (1, vocabulary); NaN where one of the chunk is NaN or +∞.
pub fn maxima(logits: &Mat) -> Vec<f32> {
    if let Some(buffer) = logits.buffer() {
        return cuda::maxima(buffer, logits.cols());
    }
    let largest = |chunk: &[f32]| {
        chunk.iter().fold(f32::NEG_INFINITY, |largest, &logit| match logit {
            l if l.is_nan() || l == f32::INFINITY || largest.is_nan() => f32::NAN,
            l if l > largest => l,
            _ => largest,
        })
    };
    logits.data().chunks(CHUNK).map(largest).collect()
}

/// Copies the chunks whose numbers are in `which` to their places in `to` (vocabulary), on the host.
///
/// # Panics
/// If there is no such chunk, or `to` is not as long as `logits`.
pub fn fetch(logits: &Mat, which: &[u32], to: &mut [f32]) {
    assert!(to.len() == logits.cols(), "fetch: {} logits into {}", logits.cols(), to.len());
    let range = |chunk: u32| chunk as usize * CHUNK..(chunk as usize * CHUNK + CHUNK).min(logits.cols());
    match logits.buffer() {
        None => {
            which.iter().for_each(|&chunk| to[range(chunk)].copy_from_slice(&logits.data()[range(chunk)]))
        }
        Some(buffer) if which.len() * CHUNK * 2 > logits.cols() => buffer.read(0, to),
        Some(buffer) => {
            let fetched = cuda::chunks(buffer, logits.cols(), which);
            for (&chunk, values) in which.iter().zip(fetched.chunks_exact(CHUNK)) {
                let range = range(chunk);
                let len = range.len();
                to[range].copy_from_slice(&values[..len]);
            }
        }
    }
}
