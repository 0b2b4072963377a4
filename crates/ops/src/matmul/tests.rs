//! Every implementation against the reference level for every stored type, alone and in batches, and the
//! reference against f64.

use super::*;
use crate::device::Place;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

/// Encoded random weights of `rows` x `cols`.
fn weights(rng: &mut Rng, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
    let row_bytes = dtype.row_bytes(cols).expect("whole blocks");
    let mut bytes = vec![0; rows * row_bytes];
    for row in bytes.chunks_exact_mut(row_bytes) {
        quant::encode_row(dtype, &rng.uniform(cols, 0.5), row).expect("sizes match");
    }
    bytes
}

/// In the form in which it is multiplied.
fn packed(w: Result<Weight<'_>, WeightError>) -> Packed {
    Packed::new(&Cx::new(2, Simd::best()).expect("available"), &w.expect("sizes match"), Place::Host)
        .expect("memory")
}

/// Widths worth trying: single blocks, whole panels, several of them, partial last ones.
fn widths(dtype: DType) -> Vec<usize> {
    match dtype.block_len() {
        1 => vec![1, 7, 16, 127, 128, 129, 300],
        32 => vec![32, 224, 512, 544, 1056],
        _ => vec![256, 512, 768, 1280],
    }
}

#[test]
fn implementations_equal_the_reference_for_every_type() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, rng| {
        for dtype in DType::ALL {
            for cols in widths(dtype) {
                for rows in [1, 15, 16, 33] {
                    let bytes = weights(rng, dtype, rows, cols);
                    let w = packed(Weight::new(dtype, rows, cols, &bytes, 0.75));
                    let bias = Vector::from(rng.uniform(rows, 1.0));
                    let x = Mat::from_vec(9, cols, rng.uniform(9 * cols, 2.0));
                    let want = matmul(&reference, x.view(), &w, Some(&bias));
                    let what = format!("{dtype} {rows} x {cols} {}", cx.simd());
                    let together = matmul(cx, x.view(), &w, Some(&bias));
                    assert_same_bits(together.data(), want.data(), &what);
                    for m in 0..9 {
                        let alone = matmul(cx, x.view().slice_rows(m..m + 1), &w, Some(&bias));
                        assert_same_bits(alone.data(), want.row(m), &format!("{what}, row {m} alone"));
                    }
                }
            }
        }
    });
}

#[test]
fn extreme_codes_do_not_saturate() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, _| {
        for format in quant::FORMATS {
            for fill in [0x00, 0xff, 0x7f, 0x80] {
                let mut bytes = vec![fill; 16 * format.dtype.row_bytes(256).expect("whole blocks")];
                // Any scale will do as long as it is a number: 0x3c3c is 1.06 in f16.
                for block in bytes.chunks_exact_mut(format.dtype.block_bytes()) {
                    let n = block.len();
                    block[..4].fill(0x3c);
                    block[n - 4..].fill(0x3c);
                }
                let w = packed(Weight::new(format.dtype, 16, 256, &bytes, 1.0));
                // Up to four tokens go straight from memory, more in tiles, the last of which is not full.
                for (value, m) in
                    [1.0, -1.0].into_iter().flat_map(|v| [1, 2, 4, 5, 8, 13, 19].map(|m| (v, m)))
                {
                    let x = Mat::from_vec(m, 256, vec![value; m * 256]);
                    let want = matmul(&reference, x.view(), &w, None);
                    let got = matmul(cx, x.view(), &w, None);
                    let what = format!("{} {fill:#x}, {m} tokens, {}", format.dtype, cx.simd());
                    assert_same_bits(got.data(), want.data(), &what);
                }
            }
        }
    });
}

#[test]
fn more_tokens_than_a_tile_and_threads() {
    on_every_simd(|cx, rng| {
        let (m, rows, cols) = (600, 40, 64);
        let x = Mat::from_vec(m, cols, rng.uniform(m * cols, 2.0));
        for dtype in [DType::Q5_0, DType::BF16] {
            let bytes = weights(rng, dtype, rows, cols);
            let w = packed(Weight::new(dtype, rows, cols, &bytes, 1.0));
            let all = matmul(cx, x.view(), &w, None);
            for m in [0, 239, 240, 251, 252, 479, 480, 599] {
                let alone = matmul(cx, x.view().slice_rows(m..m + 1), &w, None);
                assert_same_bits(all.row(m), alone.data(), &format!("{dtype} token {m}"));
            }
        }
    });
}

/// Rows of any bytes, but for scales that are numbers (0x3c3c is 1.06 in f16): every code that can occur, and sums that
/// show the order they were made in.
fn any_weights(rng: &mut Rng, format: &quant::Format, rows: usize, cols: usize) -> Vec<u8> {
    let mut bytes = rng.bytes(rows * format.dtype.row_bytes(cols).expect("whole blocks"));
    for block in bytes.chunks_exact_mut(format.dtype.block_bytes()) {
        format.halves.iter().for_each(|at| block[*at + 1] = block[*at + 1] & 0x83 | 0x38);
    }
    bytes
}

/// Products of `w` on the host and on the device with columns of a wider matrix have the same bits.
fn device_equals_host(cx: &Cx, rng: &mut Rng, w: &Weight<'_>, tokens: &[usize], change: impl Fn(&mut Mat)) {
    let (rows, cols) = (w.rows(), w.cols());
    let there = Packed::new(cx, w, Place::Device).expect("memory");
    let here = packed(Ok(*w));
    let bias = Vector::from(rng.uniform(rows, 1.0));
    let bias_there = cx.vector_to(Place::Device, bias.clone());
    for &tokens in tokens {
        let mut x = Mat::from_vec(tokens, cols + 3, rng.uniform(tokens * (cols + 3), 2.0));
        change(&mut x);
        let want = matmul(cx, x.view().slice_cols(2..cols + 2), &here, Some(&bias));
        let x = cx.mat_to(Place::Device, x);
        let got = matmul(cx, x.view().slice_cols(2..cols + 2), &there, Some(&bias_there));
        let what = format!("{} {rows} x {cols}, {tokens} tokens", w.dtype());
        assert_same_bits(cx.mat_to(Place::Host, got).data(), want.data(), &what);
    }
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        // One panel, several with a last one that is not full, more than a low and a high tile.
        let rows = [5, 16, 17, 40, 130, 300];
        // The kernels for one token, for up to eight, low and high tiles, and more than one of these.
        let tokens = [[1, 0, 8, 9, 129], [2, 33, 1, 70, 200], [3, 64, 1, 65, 130]];
        for (i, format) in quant::FORMATS.iter().enumerate() {
            let is_short = format.dtype.block_len() == 32;
            let widths: &[usize] = if is_short { &[32, 96, 1024, 3136] } else { &[256, 512, 1280, 2048] };
            for (j, &cols) in widths.iter().enumerate() {
                let rows = rows[(i + 2 * j) % rows.len()];
                let bytes = any_weights(rng, format, rows, cols);
                let w = Weight::new(format.dtype, rows, cols, &bytes, 0.75).expect("sizes match");
                device_equals_host(cx, rng, &w, &tokens[(i + j) % tokens.len()], |_| ());
            }
        }
    });
}

#[test]
fn extreme_codes_on_a_device_do_not_overflow() {
    on_gpu(|cx, rng| {
        for format in quant::FORMATS {
            for fill in [0x00, 0xff, 0x7f, 0x80] {
                let mut bytes = vec![fill; 16 * format.dtype.row_bytes(256).expect("whole blocks")];
                for block in bytes.chunks_exact_mut(format.dtype.block_bytes()) {
                    format.halves.iter().for_each(|at| block[*at..at + 2].fill(0x3c));
                }
                let w = Weight::new(format.dtype, 16, 256, &bytes, 1.0).expect("sizes match");
                for value in [1.0, -1.0] {
                    device_equals_host(cx, rng, &w, &[1, 9], |x| x.data_mut().fill(value));
                }
            }
        }
    });
}

#[test]
fn what_is_no_number_spoils_its_token_on_a_device_too() {
    on_gpu(|cx, rng| {
        let (rows, cols) = (17, 256);
        for dtype in [DType::Q5_0, DType::Q2K, DType::Q4K] {
            let bytes = weights(rng, dtype, rows, cols);
            let w = Weight::new(dtype, rows, cols, &bytes, 1.0).expect("sizes match");
            device_equals_host(cx, rng, &w, &[1, 5, 9], |x| {
                let last = x.rows() - 1;
                x.row_mut(last)[40] = f32::NAN;
                x.row_mut(last / 2)[200] = f32::NEG_INFINITY;
                x.row_mut(0)[2..34].fill(1e-35);
            });
        }
        // Any bytes: scales that are infinite or no number.
        let bytes = rng.bytes(rows * DType::Q4_1.row_bytes(1024).expect("whole blocks"));
        let w = Weight::new(DType::Q4_1, rows, 1024, &bytes, 1.0).expect("sizes match");
        device_equals_host(cx, rng, &w, &[1, 2, 9], |_| ());
    });
}

/// A weight and a bias, here and on the device.
struct Twins {
    here: (Packed, Vector),
    there: (Packed, Vector),
}

impl Twins {
    fn new(cx: &Cx, rng: &mut Rng, dtype: DType, rows: usize, cols: usize) -> Twins {
        let bytes = weights(rng, dtype, rows, cols);
        let w = Weight::new(dtype, rows, cols, &bytes, 0.75).expect("sizes match");
        let bias = Vector::from(rng.uniform(rows, 1.0));
        let bias_there = cx.vector_to(Place::Device, bias.clone());
        let there = Packed::new(cx, &w, Place::Device).expect("memory");
        Twins { here: (packed(Ok(w)), bias), there: (there, bias_there) }
    }

    /// The products with all but the first and the last column of `x`.
    fn multiply(&self, cx: &Cx, x: &Mat) -> [Mat; 2] {
        let cols = 1..x.cols() - 1;
        let x_there = cx.mat_to(Place::Device, Mat::from_vec(x.rows(), x.cols(), x.data().to_vec()));
        let (here, there) = (&self.here, &self.there);
        let want = matmul(cx, x.view().slice_cols(cols.clone()), &here.0, Some(&here.1));
        let got = matmul(cx, x_there.view().slice_cols(cols), &there.0, Some(&there.1));
        [cx.mat_to(Place::Host, got), want]
    }
}

#[test]
fn chains_on_a_device_equal_the_host() {
    on_gpu(|cx, rng| {
        for dtype in [DType::F32, DType::F16] {
            // Parts of a word, of a step of tiles, of a stage; more stages than are under way.
            for (cols, rows) in [(1, 33), (7, 1), (16, 16), (130, 15), (515, 70), (1100, 17)] {
                let twins = Twins::new(cx, rng, dtype, rows, cols);
                for tokens in [0, 1, 7, 9, 32, 33, 70] {
                    let x = Mat::from_vec(tokens, cols + 2, rng.uniform(tokens * (cols + 2), 2.0));
                    let [got, want] = twins.multiply(cx, &x);
                    let what = format!("{dtype} {rows} x {cols}, {tokens} tokens");
                    assert_same_bits(got.data(), want.data(), &what);
                }
            }
        }
    });
}

#[test]
fn tensor_cores_are_close_to_the_host_and_equal_themselves() {
    on_gpu(|cx, rng| {
        for dtype in [DType::BF16, DType::F8E4M3] {
            // Parts of a step, of a stage, of a segment; several segments.
            for (cols, rows) in [(1, 33), (16, 16), (130, 15), (515, 70), (1100, 17)] {
                let twins = Twins::new(cx, rng, dtype, rows, cols);
                let x = Mat::from_vec(70, cols + 2, rng.uniform(70 * (cols + 2), 2.0));
                let [all, want] = twins.multiply(cx, &x);
                // No element of a weight is larger than 0.5 · 0.75, none of x larger than 2.
                let tolerance = 1e-6 * (cols as f32 * 0.75 + 1.0);
                for (i, (got, want)) in all.data().iter().zip(want.data()).enumerate() {
                    let what = format!("{dtype} {rows} x {cols}, element {i}: {got} {want}");
                    assert!((got - want).abs() <= tolerance, "{what}");
                }
                for tokens in [0..1, 3..10, 10..42, 33..66, 69..70] {
                    let part = x.data()[tokens.start * (cols + 2)..tokens.end * (cols + 2)].to_vec();
                    let [part, _] = twins.multiply(cx, &Mat::from_vec(tokens.len(), cols + 2, part));
                    let want = &all.data()[tokens.start * rows..tokens.end * rows];
                    let what = format!("{dtype} {rows} x {cols}, tokens {tokens:?} alone");
                    assert_same_bits(part.data(), want, &what);
                }
            }
        }
    });
}

#[test]
fn nothing_of_an_activation_is_lost_on_tensor_cores() {
    on_gpu(|cx, rng| {
        let one: Vec<u8> = [0x80, 0x3f].to_vec();
        let w = Weight::new(DType::BF16, 1, 1, &one, 1.0).expect("sizes match");
        let w = Packed::new(cx, &w, Place::Device).expect("memory");
        // Any float of which not even the smallest part is subnormal.
        let any = |rng: &mut Rng| {
            std::iter::repeat_with(|| f32::from_bits(rng.next() as u32))
                .find(|x| x.abs() > 1e-30 || x.is_nan())
        };
        let mut x: Vec<f32> = (0..500).filter_map(|_| any(rng)).collect();
        x.extend([0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7f80_0001)]);
        let there = cx.mat_to(Place::Device, Mat::from_vec(x.len(), 1, x.clone()));
        let got = cx.mat_to(Place::Host, matmul(cx, there.view(), &w, None));
        assert_same_bits(got.data(), &x, "products with one");
    });
}

#[test]
fn reference_is_the_product() {
    let cx = Cx::new(1, Simd::Reference).expect("always available");
    let mut rng = Rng::new(6);
    let (rows, cols) = (5, 256);
    for dtype in DType::ALL {
        let bytes = weights(&mut rng, dtype, rows, cols);
        let w = packed(Weight::new(dtype, rows, cols, &bytes, 1.0));
        let x = Mat::from_vec(1, cols, rng.uniform(cols, 1.0));
        let got = matmul(&cx, x.view(), &w, None);
        for r in 0..rows {
            let mut row = vec![0.0; cols];
            quant::dequantize_row(Simd::Reference, dtype, &w.row(r), &mut row).expect("sizes match");
            let want: f64 = row.iter().zip(x.row(0)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            // Activations of block formats are rounded to 1/254 of their block's largest: 256 such errors of
            // at most 0.004 times weights of at most 0.5 add up to about 0.02 (three deviations).
            let tolerance = if dtype.is_quantised() { 0.03 } else { 1e-5 };
            let error = (f64::from(got.row(0)[r]) - want).abs();
            assert!(error < tolerance, "{dtype} row {r}: {} {want}", got.row(0)[r]);
        }
    }
}

#[test]
fn no_tokens_give_no_rows() {
    on_every_simd(|cx, rng| {
        for dtype in DType::ALL {
            let bytes = weights(rng, dtype, 16, 256);
            let w = packed(Weight::new(dtype, 16, 256, &bytes, 1.0));
            let y = matmul(cx, Mat::from_vec(0, 256, Vec::new()).view(), &w, None);
            assert_eq!((y.rows(), y.cols()), (0, 16), "{dtype}");
        }
    });
}

#[test]
fn packing_keeps_every_byte() {
    let mut rng = Rng::new(8);
    for dtype in DType::ALL {
        let cols = 2 * dtype.block_len();
        let bytes = rng.bytes(19 * dtype.row_bytes(cols).expect("whole blocks"));
        let w = Weight::new(dtype, 19, cols, &bytes, 1.0).expect("sizes match");
        let packed = packed(Ok(w));
        assert_eq!(packed.bytes(), 32 * w.row(0).len(), "{dtype}");
        for r in 0..19 {
            assert_eq!(packed.row(r), w.row(r), "{dtype} row {r}");
        }
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let error = Weight::new(DType::Q4K, 2, 100, &[], 1.0).expect_err("100 is no multiple of 256");
    assert!(error.to_string().contains("100"), "{error}");
    let error = Weight::new(DType::F32, 2, 3, &[0; 23], 1.0).expect_err("24 bytes");
    assert!(error.to_string().contains("24 bytes, found 23"), "{error}");
}
