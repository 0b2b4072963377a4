//! How long a context the model is made for and the machine can hold, asked before any work is done.
//!
//! A sequence of n tokens takes
//!
//! ```text
//! fixed recurrent state + n · (keys and values per token), n rounded up to whole pages of 64
//! ```
//!
//! bytes. A fork or kept state takes the fixed part again. Weights take the bytes they have in their files; they are in memory
//! before a context is asked for, so that the system no longer counts their part as available.

use tangelo_model::{Model, State};
use tangelo_ops::attention::PAGE;

use crate::error::{Error, Result};

/// Part of the available memory that a context may take without being asked for: half, the rest is for weights,
/// activations and kept states.
const DEFAULT_SHARE: u64 = 2;

/// Bytes of state of a sequence of `tokens` tokens.
pub fn context_bytes(model: &Model, tokens: usize) -> u64 {
    let config = model.config();
    let rows = (tokens as u64).div_ceil(PAGE as u64).saturating_mul(PAGE as u64);
    (State::bytes_per_token(config, model.kv_type()) as u64)
        .saturating_mul(rows)
        .saturating_add(State::bytes_fixed(config) as u64)
}

/// The most tokens whose state fits in `bytes`, by whole pages.
pub(crate) fn tokens_in(model: &Model, bytes: u64) -> usize {
    let config = model.config();
    let per_page = (State::bytes_per_token(config, model.kv_type()) * PAGE) as u64;
    let left = bytes.saturating_sub(State::bytes_fixed(config) as u64);
    match left.checked_div(per_page) {
        Some(pages) => usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(PAGE),
        None => usize::MAX, // No attention, no growth.
    }
}

/// The context that is used when none is asked for: what the model is made for, or less if its state would take more
/// than half of the available memory.
pub fn default_context(model: &Model, available: Option<u64>) -> usize {
    let fits = available.map_or(usize::MAX, |bytes| tokens_in(model, bytes / DEFAULT_SHARE));
    model.config().max_position_embeddings.min(fits.max(PAGE))
}

/// Whether a context of `context` tokens is within what the model is made for and fits in `available` bytes, if
/// these are known.
///
/// # Errors
/// [`Error::ContextTooLong`], [`Error::NotEnoughMemory`].
pub fn check_context(model: &Model, context: usize, available: Option<u64>) -> Result<()> {
    let max = model.config().max_position_embeddings;
    if context > max {
        return Err(Error::ContextTooLong { context, max });
    }
    let needed = context_bytes(model, context);
    match available {
        Some(available) if needed > available => {
            let fits = tokens_in(model, available);
            Err(Error::NotEnoughMemory { context, needed, available, fits })
        }
        _ => Ok(()),
    }
}

/// Whether weights of `bytes` bytes fit in `available` bytes, if these are known.
///
/// # Errors
/// [`Error::WeightsTooLarge`].
pub fn check_weights(bytes: u64, available: Option<u64>) -> Result<()> {
    match available {
        Some(available) if bytes > available => Err(Error::WeightsTooLarge { needed: bytes, available }),
        _ => Ok(()),
    }
}

/// Bytes of memory that can be had without swapping, where the system says so (Linux: `MemAvailable`).
pub fn available_bytes() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_larger_than_memory_are_refused_before_they_are_read() {
        assert!(check_weights(5, Some(5)).is_ok() && check_weights(5, None).is_ok());
        let error = check_weights(6, Some(5)).expect_err("one byte too many").to_string();
        assert!(error.contains("6 bytes") && error.contains("5 bytes"), "{error}");
    }

    #[test]
    fn meminfo_is_read_in_kibibytes() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   12345678 kB\n";
        assert_eq!(parse_meminfo(text), Some(12_345_678 * 1024));
        for broken in ["", "MemAvailable: x kB", "MemAvailable: 5", "MemAvailable: 99999999999999999999 kB"] {
            assert_eq!(parse_meminfo(broken), None, "{broken}");
        }
    }
}
