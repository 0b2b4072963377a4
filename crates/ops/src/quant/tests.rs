//! Goldens of the `gguf` package, every decoder against its reference, and error bounds of the encoders.

use safetensors::SafeTensors;
use tangelo_core::DType;

use super::*;
use crate::testing::Rng;

/// A normal number of unit variance (Box and Muller's transform).
fn normal(rng: &mut Rng) -> f32 {
    let uniform = rng.uniform(2, 0.5);
    // Above zero, so that its logarithm is finite.
    let (u, v) = ((uniform[0] + 0.5).max(f32::MIN_POSITIVE), uniform[1]);
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Calls `check` with the name and the data of every tensor of the golden file whose name ends with `suffix`,
/// and the data of its companion.
fn for_goldens(suffix: &str, companion: &str, mut check: impl FnMut(DType, &[u8], &[u8])) -> usize {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/gguf_blocks/blocks.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut checked = 0;
    for name in tensors.names() {
        let Some(stem) = name.strip_suffix(suffix) else { continue };
        let dtype = DType::from_name(stem).unwrap();
        let other = tensors.tensor(&format!("{stem}{companion}")).unwrap();
        check(dtype, tensors.tensor(name).unwrap().data(), other.data());
        checked += 1;
    }
    checked
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn decoding_equals_the_gguf_package() {
    let checked = for_goldens(".bytes", ".f32", |dtype, bytes, want| {
        let want = floats(want);
        for level in Simd::available() {
            let mut out = vec![0.0; want.len()];
            dequantize_row(level, dtype, bytes, &mut out).unwrap();
            assert_eq!(bits(&out), bits(&want), "{dtype} {level}");
        }
    });
    assert_eq!(checked, FORMATS.len() + 2, "every block format, F16 and BF16");
}

#[test]
fn encoding_equals_the_gguf_package_where_it_can_encode() {
    let checked = for_goldens(".x", ".encoded", |dtype, x, want| {
        let mut out = vec![0; want.len()];
        encode_row(dtype, &floats(x), &mut out).unwrap();
        assert_eq!(out, want, "{dtype}");
    });
    assert_eq!(checked, 5);
}

#[test]
fn every_block_type_has_one_consistent_format() {
    for dtype in DType::ALL {
        assert_eq!(format(dtype).is_some(), dtype.is_quantised(), "{dtype}");
    }
    for format in FORMATS {
        assert_eq!(FORMATS.iter().filter(|f| f.dtype == format.dtype).count(), 1);
        assert!(matches!(format.group, 16 | 32), "{}", format.dtype);
        assert_eq!(format.dtype.block_len() % format.group, 0, "{}", format.dtype);
        assert_eq!(TILE % format.dtype.block_len(), 0, "{}", format.dtype);
        assert!(format.halves.is_sorted() && format.halves.iter().all(|at| at % 2 == 0), "{}", format.dtype);
    }
}

/// What [`Unpack`] writes.
struct Unpacked {
    q: Vec<u8>,
    scale: Vec<f32>,
    min: Vec<f32>,
}

/// Recognisable in what an implementation must not have touched.
const UNTOUCHED: f32 = 12345.0;

fn unpack(format: &Format, blocks: usize, src: &[u8]) -> Unpacked {
    let len = blocks * format.dtype.block_len();
    let groups = len / format.group;
    let mut out =
        Unpacked { q: vec![0xaa; len], scale: vec![UNTOUCHED; groups], min: vec![UNTOUCHED; groups] };
    (format.unpack)(src, &mut out.q, &mut out.scale, &mut out.min);
    out
}

#[test]
fn the_largest_code_occurs() {
    for format in FORMATS {
        let out = unpack(format, 64, &Rng::new(2).bytes(64 * format.dtype.block_bytes()));
        assert_eq!(out.q.iter().max(), Some(&format.q_max), "{}", format.dtype);
    }
}

/// The claim of the module's head on which kernels with and without FMA agree.
#[test]
fn the_product_is_exact() {
    for format in FORMATS {
        let out = unpack(format, 64, &Rng::new(3).bytes(64 * format.dtype.block_bytes()));
        for (i, &q) in out.q.iter().enumerate() {
            let scale = out.scale[i / format.group];
            let code = (i32::from(q) - i32::from(format.offset)) as f32;
            if scale.is_finite() {
                let exact = f64::from(scale) * f64::from(code);
                assert_eq!(f64::from(scale * code), exact, "{} element {i}", format.dtype);
            }
        }
    }
}

fn round_trip(format: &Format, x: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0; format.dtype.row_bytes(x.len()).unwrap()];
    encode_row(format.dtype, x, &mut bytes).unwrap();
    let mut out = vec![0.0; x.len()];
    dequantize_row(Simd::Reference, format.dtype, &bytes, &mut out).unwrap();
    out
}

/// Largest root mean square error of normal numbers of unit variance: what the encoders reach, and 1 % more.
/// (For scale: a uniform quantiser with 2^b levels over the range of a group of 32, about 4.1 standard
/// deviations, has 4.1 / 2^b / √12, which is 0.0046 at 8 bits, 0.037 at 5 and 0.074 at 4.)
fn rms_bound(dtype: DType) -> f32 {
    match dtype {
        DType::Q8_0 => 0.0054,
        DType::Q6K => 0.0184,
        DType::Q5_0 => 0.0431,
        DType::Q5_1 | DType::Q5K => 0.0381,
        DType::Q4_0 => 0.0863,
        DType::Q4_1 | DType::IQ4NL => 0.0787,
        DType::Q4K => 0.0763,
        DType::Q3K => 0.1502,
        DType::Q2K => 0.2852,
        _ => unreachable!("{dtype} has no blocks"),
    }
}

#[test]
fn normal_numbers_survive_the_round_trip_at_every_magnitude() {
    for format in FORMATS {
        // Below about 1e-3 the f16 scales themselves lose bits.
        for magnitude in [1e-2f32, 1.0, 1e3] {
            let mut rng = Rng::new(4);
            let x: Vec<f32> = (0..64 * 256).map(|_| normal(&mut rng) * magnitude).collect();
            let y = round_trip(format, &x);
            let square: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let rms = (square / x.len() as f64).sqrt() as f32 / magnitude;
            assert!(rms <= rms_bound(format.dtype), "{} at {magnitude}: {rms}", format.dtype);
        }
    }
}

/// No element is off by more than a step and a half: half a step of rounding, one of clipping where the codes
/// of a symmetric format reach further to one side than to the other.
#[test]
fn no_element_is_far_off() {
    for format in FORMATS {
        let mut rng = Rng::new(5);
        let x: Vec<f32> = rng.uniform(64 * 256, 1.0);
        let bound = match format.dtype {
            // The levels end at −127 and 113, and least squares lets both ends clip a little more.
            DType::IQ4NL => 20.0 / 127.0,
            _ => 1.5 * 2.0 / f32::from(format.q_max),
        };
        for (i, (x, y)) in x.iter().zip(round_trip(format, &x)).enumerate() {
            assert!((x - y).abs() <= bound, "{} element {i}: {x} became {y}", format.dtype);
        }
    }
}

#[test]
fn groups_that_the_format_holds_exactly_come_back_exactly() {
    for format in FORMATS {
        assert!(round_trip(format, &[0.0; 512]).iter().all(|&y| y == 0.0), "{}", format.dtype);
        // One constant per block, negative, so that every format has a code for it.
        let y = round_trip(format, &[-1.0; 512]);
        let tolerance = if format.dtype == DType::Q8_0 { 1e-3 } else { 4e-3 };
        assert!(y.iter().all(|y| (y + 1.0).abs() <= tolerance), "{}: {}", format.dtype, y[0]);
    }
}

#[test]
fn any_input_encodes_to_finite_numbers() {
    let mut rng = Rng::new(6);
    for format in FORMATS {
        for round in 0..200 {
            let special = [0.0, -0.0, 1e-45, -3e-39, 1e-8, 65504.0, 7e4, -1e30, f32::MAX, f32::MIN];
            let x: Vec<f32> = (0..256)
                .map(|_| match round % 4 {
                    0 => special[rng.next() as usize % special.len()],
                    1 => f32::from_bits(rng.next() as u32),
                    2 => normal(&mut rng) * 10f32.powi((round / 4) - 25),
                    _ => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0][rng.next() as usize % 4],
                })
                .collect();
            let y = round_trip(format, &x);
            assert!(y.iter().all(|y| y.is_finite()), "{} round {round}", format.dtype);
        }
        // Scales that overflow saturate: the sign survives and the magnitude is the largest there is.
        let y = round_trip(format, &[-1e30; 256]);
        assert!(y.iter().all(|&y| y <= -65504.0), "{}: {}", format.dtype, y[0]);
    }
}

#[test]
fn plain_floats_round_to_nearest_even() {
    let x = [1.0, -0.1, 65504.0, 1.0 + 2f32.powi(-9)];
    for (dtype, want) in [
        (DType::F32, x),
        (DType::F16, [1.0, -0.099_975_586, 65504.0, 1.0 + 2f32.powi(-9)]),
        (DType::BF16, [1.0, -0.100_097_656, 65536.0, 1.0]),
        (DType::F8E4M3, [1.0, -0.101_562_5, 448.0, 1.0]),
    ] {
        let mut bytes = vec![0; dtype.row_bytes(x.len()).unwrap()];
        encode_row(dtype, &x, &mut bytes).unwrap();
        let mut out = [0.0; 4];
        dequantize_row(Simd::best(), dtype, &bytes, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&want), "{dtype}");
    }
}

#[test]
fn every_bit_pattern_of_a_short_float_widens_alike() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DType::F16, DType::BF16, DType::F8E4M3] {
        // One byte in, so that nothing is aligned, and one element short of whole eights.
        let src = &all[1..all.len() - dtype.block_bytes() - 1];
        let src = &src[..src.len() / dtype.block_bytes() * dtype.block_bytes()];
        let mut want = vec![0.0; src.len() / dtype.block_bytes()];
        dequantize_row(Simd::Reference, dtype, src, &mut want).unwrap();
        for level in Simd::available() {
            let mut got = vec![0.0; want.len()];
            dequantize_row(level, dtype, src, &mut got).unwrap();
            crate::testing::assert_same_bits(&got, &want, &format!("{dtype} {level}"));
        }
    }
}

#[test]
fn sizes_that_do_not_match_are_refused() {
    let mut out = [0.0; 48];
    let error = dequantize_row(Simd::best(), DType::Q4_0, &[0; 27], &mut out).unwrap_err();
    assert_eq!(error, QuantError::NotWholeBlocks { dtype: DType::Q4_0, block_len: 32, len: 48 });
    let error = dequantize_row(Simd::best(), DType::Q4_0, &[0; 17], &mut out[..32]).unwrap_err();
    assert_eq!(error, QuantError::Bytes { dtype: DType::Q4_0, len: 32, want: 18, got: 17 });
    let error = encode_row(DType::F32, &out, &mut [0; 4]).unwrap_err();
    assert_eq!(error, QuantError::Bytes { dtype: DType::F32, len: 48, want: 192, got: 4 });
    assert_eq!(dequantize_row(Simd::best(), DType::Q6K, &[], &mut []), Ok(()));
}
