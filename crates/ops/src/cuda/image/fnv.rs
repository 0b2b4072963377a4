//! FNV-1a with 64 bits: tells one set of sources from another and a whole file from a damaged one. It protects from
//! accidents, not from malice. Also compiled into this crate's build script.

/// The hash of the parts, each with its length, so that ("ab", "c") is not ("a", "bc").
pub(super) fn fnv1a(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for &byte in (part.len() as u64).to_le_bytes().iter().chain(*part) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
