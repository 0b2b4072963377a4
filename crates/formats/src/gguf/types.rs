//! Numbers of ggml's tensor types (`enum ggml_type` in `ggml.h`).

use tangelo_core::DType;

/// The types this program reads and writes.
const SUPPORTED: [(u32, DType); 14] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (10, DType::Q2K),
    (11, DType::Q3K),
    (12, DType::Q4K),
    (13, DType::Q5K),
    (14, DType::Q6K),
    (20, DType::IQ4NL),
    (30, DType::BF16),
];

/// Names of the others, so that a refusal can say what the file holds.
const UNSUPPORTED: [(u32, &str); 19] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// The element type behind a number of the file.
///
/// # Errors
/// The type's name, or its number if it has none here.
pub fn dtype_from_number(number: u32) -> Result<DType, String> {
    if let Some((_, dtype)) = SUPPORTED.iter().find(|(n, _)| *n == number) {
        return Ok(*dtype);
    }
    Err(match UNSUPPORTED.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => format!("{name} (ggml type {number})"),
        None => format!("ggml type {number}"),
    })
}

/// ggml's number of an element type; `None` for F8_E4M3, which ggml does not have.
pub fn number_of_dtype(dtype: DType) -> Option<u32> {
    SUPPORTED.iter().find(|(_, d)| *d == dtype).map(|(n, _)| *n)
}

/// The value of `general.file_type` for a file whose matrices mostly have this type (`enum llama_ftype` in
/// llama.cpp's `include/llama.h`; the K-quants are the medium mixtures).
pub fn file_type_of(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2K => 10,
        DType::Q3K => 12,
        DType::Q4K => 15,
        DType::Q5K => 17,
        DType::Q6K => 18,
        DType::IQ4NL => 25,
        DType::BF16 => 32,
        DType::F8E4M3 => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_bijection() {
        for dtype in DType::ALL {
            match number_of_dtype(dtype) {
                Some(n) => assert_eq!(dtype_from_number(n), Ok(dtype)),
                None => assert_eq!(dtype, DType::F8E4M3),
            }
        }
        for (n, name) in UNSUPPORTED {
            assert!(dtype_from_number(n).unwrap_err().starts_with(name));
        }
        assert_eq!(dtype_from_number(4), Err("ggml type 4".into()), "removed from ggml");
    }
}
