//! Element types as they lie in files: plain floats and ggml's block formats.
//!
//! A *block* is the smallest unit that can be decoded alone: one element for the float types, 32 or 256
//! elements for the quantised ones. Rows are stored as whole blocks, so a row of `n` elements exists only
//! if `n` is a multiple of [`DType::block_len`]. What the bytes of a block mean is written beside the
//! decoder of each type in `tangelo_ops::quant`.

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinity (OCP "E4M3FN").
    F8E4M3,
    /// 32 × int8, f16 scale.
    Q8_0,
    /// 32 × 4 bit, f16 scale, offset 8.
    Q4_0,
    /// 32 × 4 bit, f16 scale and f16 minimum.
    Q4_1,
    /// 32 × 5 bit, f16 scale, offset 16.
    Q5_0,
    /// 32 × 5 bit, f16 scale and f16 minimum.
    Q5_1,
    /// 256 × 2 bit in groups of 16, 4-bit scales and minima.
    Q2K,
    /// 256 × 3 bit in groups of 16, 6-bit scales.
    Q3K,
    /// 256 × 4 bit in groups of 32, 6-bit scales and minima.
    Q4K,
    /// 256 × 5 bit in groups of 32, 6-bit scales and minima.
    Q5K,
    /// 256 × 6 bit in groups of 16, 8-bit scales.
    Q6K,
    /// 32 × 4 bit indices into a fixed table of 16 levels, f16 scale.
    IQ4NL,
}

impl DType {
    /// Every type, plain floats first.
    pub const ALL: [DType; 15] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ4NL,
    ];

    /// (name, elements per block, bytes per block); the one table of layouts.
    const fn layout(self) -> (&'static str, usize, usize) {
        match self {
            DType::F32 => ("F32", 1, 4),
            DType::F16 => ("F16", 1, 2),
            DType::BF16 => ("BF16", 1, 2),
            DType::F8E4M3 => ("F8_E4M3", 1, 1),
            DType::Q8_0 => ("Q8_0", 32, 2 + 32),
            DType::Q4_0 => ("Q4_0", 32, 2 + 16),
            DType::Q4_1 => ("Q4_1", 32, 2 + 2 + 16),
            DType::Q5_0 => ("Q5_0", 32, 2 + 4 + 16),
            DType::Q5_1 => ("Q5_1", 32, 2 + 2 + 4 + 16),
            DType::Q2K => ("Q2_K", 256, 16 + 64 + 2 + 2),
            DType::Q3K => ("Q3_K", 256, 32 + 64 + 12 + 2),
            DType::Q4K => ("Q4_K", 256, 2 + 2 + 12 + 128),
            DType::Q5K => ("Q5_K", 256, 2 + 2 + 12 + 32 + 128),
            DType::Q6K => ("Q6_K", 256, 128 + 64 + 16 + 2),
            DType::IQ4NL => ("IQ4_NL", 32, 2 + 16),
        }
    }

    /// The name used by ggml and safetensors.
    pub const fn name(self) -> &'static str {
        self.layout().0
    }

    /// Elements per block.
    pub const fn block_len(self) -> usize {
        self.layout().1
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// Whether elements share a scale, so that a matmul goes through integers.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a row of `n` elements; `None` if `n` is not whole blocks or the size overflows.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        let (_, len, bytes) = self.layout();
        if !n.is_multiple_of(len) {
            return None;
        }
        (n / len).checked_mul(bytes)
    }

    /// Inverse of [`DType::name`], ignoring case (`q4_k` and `Q4_K` are the same).
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name().eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for d in DType::ALL {
            assert_eq!(DType::from_name(d.name()), Some(d));
            assert_eq!(DType::from_name(&d.name().to_lowercase()), Some(d));
        }
        assert_eq!(DType::from_name("Q9_Z"), None);
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(DType::Q4K.row_bytes(512), Some(288));
        assert_eq!(DType::Q4K.row_bytes(3136), None);
        assert_eq!(DType::Q5_0.row_bytes(3136), Some(3136 / 32 * 22));
        assert_eq!(DType::F32.row_bytes(usize::MAX), None);
    }
}
