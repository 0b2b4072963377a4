//! Values, special values and more elements than one part holds.

use super::*;
use crate::device::Place;
use crate::dispatch::Simd;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

#[test]
fn relu2_and_add_over_many_parts() {
    on_every_simd(|cx, rng| {
        let n = 2 * ELEMENTS_PER_PART + 7;
        let x = rng.uniform(n, 2.0);
        let mut squared = Mat::from_vec(1, n, x.clone());
        relu2(cx, &mut squared);
        let mut doubled = Mat::from_vec(1, n, x.clone());
        add(cx, &mut doubled, &Mat::from_vec(1, n, x.clone()));
        for i in 0..n {
            assert_eq!(squared.data()[i], x[i].max(0.0).powi(2));
            assert_eq!(doubled.data()[i], 2.0 * x[i]);
        }
    });
}

#[test]
fn relu2_keeps_nan() {
    on_every_simd(|cx, _| {
        let mut x = Mat::from_vec(1, 3, vec![f32::NAN, f32::NEG_INFINITY, f32::INFINITY]);
        relu2(cx, &mut x);
        assert!(x.data()[0].is_nan());
        assert_eq!(x.data()[1..], [0.0, f32::INFINITY]);
    });
}

#[test]
fn rows_are_gathered_and_scattered() {
    let cx = Cx::new(2, Simd::best()).expect("available");
    let x = Mat::from_vec(3, 2, vec![1., 2., 3., 4., 5., 6.]);
    let picked = gather_rows(&cx, x.view(), [2, 0].into_iter());
    assert_eq!(picked.data(), [5., 6., 1., 2.]);
    let mut sum = Mat::from_vec(3, 2, vec![1.; 6]);
    let targets = [Target { row: 0, weight: 2.0 }, Target { row: 2, weight: -1.0 }];
    add_scaled_rows(&mut sum, &targets, picked.view());
    assert_eq!(sum.data(), [11., 13., 1., 1., 0., -1.]);
    assert_eq!(take_rows(&cx, picked, [1].into_iter()).data(), [1., 2.]);
}

#[test]
fn a_matrix_whose_rows_are_all_wanted_stays_where_it_is() {
    let cx = Cx::new(2, Simd::best()).expect("available");
    let x = Mat::from_vec(3, 2, vec![1., 2., 3., 4., 5., 6.]);
    let address = x.data().as_ptr();
    assert_eq!(take_rows(&cx, x, 0..3).data().as_ptr(), address);
}

/// `op` on the host and on the device, on matrices made of the same numbers.
fn both(cx: &Cx, rng: &mut Rng, shapes: [[usize; 2]; 2], what: &str, op: impl Fn(Mat, Mat) -> Mat) {
    let [x, y] = shapes.map(|[rows, cols]| {
        let mut data = rng.uniform(rows * cols, 2.0);
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 2.0];
        data.iter_mut().skip(1).step_by(7).zip(odd).for_each(|(x, odd)| *x = odd);
        (rows, cols, data)
    });
    let on = |place| {
        let mat = |(rows, cols, data): &(usize, usize, Vec<f32>)| {
            cx.mat_to(place, Mat::from_vec(*rows, *cols, data.clone()))
        };
        cx.mat_to(Place::Host, op(mat(&x), mat(&y)))
    };
    let (host, device) = (on(Place::Host), on(Place::Device));
    assert_eq!(host.rows(), device.rows(), "{what}");
    assert_same_bits(device.data(), host.data(), what);
}

#[test]
fn the_device_computes_what_the_host_does() {
    on_gpu(|cx, rng| {
        for cols in [1, 255, 256, 700] {
            both(cx, rng, [[5, cols]; 2], "relu2", |mut x, _| {
                relu2(cx, &mut x);
                x
            });
            both(cx, rng, [[5, cols]; 2], "add", |mut x, y| {
                add(cx, &mut x, &y);
                x
            });
            both(cx, rng, [[9, cols], [3, cols + 2]], "add_scaled_rows", |mut x, y| {
                let targets = [(1, 0.5), (4, -3.0), (8, 0.1)].map(|(row, weight)| Target { row, weight });
                add_scaled_rows(&mut x, &targets, y.view().slice_cols(1..cols + 1));
                x
            });
        }
    });
}

#[test]
fn few_and_many_rows_are_gathered_on_the_device() {
    on_gpu(|cx, rng| {
        for count in [0, 1, 31, 32, 33, 100] {
            let rows: Vec<usize> = (0..count).map(|_| rng.below(40)).collect();
            both(cx, rng, [[40, 30], [1, 1]], &format!("{count} rows"), |x, _| {
                gather_rows(cx, x.view().slice_cols(3..28), rows.iter().copied())
            });
        }
    });
}
