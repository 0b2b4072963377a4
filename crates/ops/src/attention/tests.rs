//! Every implementation against the reference level, cut at every place; the reference against f64; pages far apart in
//! size; what is not finite; rounding; sharing.

use super::cache::round_to_f16;
use super::*;
use crate::device::{Mat, Place};
use crate::dispatch::Simd;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};
use tangelo_core::float::f16_to_f32;

struct Case {
    q: Mat,
    k: Mat,
    v: Mat,
    kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
}

impl Case {
    fn new(rng: &mut Rng, l: usize, [kv_heads, per_kv, head_dim]: [usize; 3], kv_type: KvType) -> Case {
        let mut mat = |cols: usize| Mat::from_vec(l, cols, rng.uniform(l * cols, 2.0));
        let width = kv_heads * head_dim;
        Case { q: mat(width * per_kv), k: mat(width), v: mat(width), kv_heads, head_dim, kv_type }
    }

    fn cache(&self, rows: Range<usize>) -> KvCache {
        let mut cache = KvCache::new(self.kv_heads, self.head_dim, self.kv_type);
        cache.append(self.k.view().slice_rows(rows.clone()), self.v.view().slice_rows(rows));
        cache
    }

    /// All rows, in calls that end at `cuts`.
    fn run(&self, cx: &Cx, cuts: &[usize]) -> Vec<f32> {
        let l = self.q.rows();
        let mut cache = self.cache(0..0);
        let mut out = Mat::from_vec(l, self.q.cols(), vec![f32::NAN; l * self.q.cols()]);
        let mut from = 0;
        for &to in cuts.iter().chain([&l]) {
            let rows = from..to;
            cache.append(self.k.view().slice_rows(rows.clone()), self.v.view().slice_rows(rows.clone()));
            let q = self.q.view().slice_rows(rows.clone());
            let part = attention(cx, q, [(0..q.rows(), &cache)]);
            rows.enumerate().for_each(|(i, row)| out.row_mut(row).copy_from_slice(part.row(i)));
            from = to;
        }
        out.data().to_vec()
    }
}

#[test]
fn any_cut_on_any_implementation_equals_the_reference() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, rng| {
        for (l, heads) in [
            (1, [1, 1, 16]),
            (5, [2, 2, 24]),
            (70, [1, 5, 12]),
            (130, [2, 17, 64]),
            (66, [2, 5, 128]),
            (9, [3, 1, 80]),
            (200, [1, 3, 20]),
        ] {
            for kv_type in KvType::ALL {
                let case = Case::new(rng, l, heads, kv_type);
                let want = case.run(&reference, &[]);
                let one_by_one: Vec<usize> = (1..l).collect();
                for cuts in [&[][..], &[l / 2], &[l / 3, l / 2], &one_by_one] {
                    let what =
                        format!("{l} tokens, {heads:?} {kv_type}, {} calls, {}", cuts.len() + 1, cx.simd());
                    assert_same_bits(&case.run(cx, cuts), &want, &what);
                }
            }
        }
    });
}

#[test]
fn later_positions_do_not_show() {
    on_every_simd(|cx, rng| {
        for kv_type in KvType::ALL {
            let mut case = Case::new(rng, 40, [1, 3, 16], kv_type);
            let want = case.run(cx, &[]);
            for t in 20..40 {
                case.k.row_mut(t).fill(f32::NAN);
                case.v.row_mut(t).fill(f32::NAN);
            }
            let got = case.run(cx, &[]);
            assert_same_bits(&got[..20 * 48], &want[..20 * 48], &format!("{kv_type} {}", cx.simd()));
        }
    });
}

#[test]
fn a_batch_is_each_alone() {
    on_every_simd(|cx, rng| {
        // More sequences than one region takes, decoding and prefilling at positions of their own.
        let parts: Vec<(usize, usize)> =
            (0..40).map(|i| (i * 5 % 90, if i % 3 == 0 { 1 } else { i })).collect();
        let l: usize = parts.iter().map(|(_, now)| now).sum();
        let case = Case::new(rng, l.max(130), [2, 3, 16], KvType::F16);
        let caches: Vec<KvCache> = parts.iter().map(|(before, now)| case.cache(0..before + now)).collect();
        let mut ends = 0;
        let mut rows = parts.iter().map(|(_, now)| {
            ends += now;
            ends - now..ends
        });
        let rows: Vec<Range<usize>> = rows.by_ref().collect();
        let q = case.q.view().slice_rows(0..l);
        let batch = attention(cx, q, rows.iter().cloned().zip(&caches));
        for (rows, cache) in rows.iter().zip(&caches) {
            let alone = attention(cx, q.slice_rows(rows.clone()), [(0..rows.len(), cache)]);
            for (i, row) in rows.clone().enumerate() {
                assert_same_bits(batch.row(row), alone.row(i), &format!("row {row} {}", cx.simd()));
            }
        }
    });
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        for (l, heads) in [
            (130, [2, 5, 128]),
            (70, [2, 2, 16]),
            (66, [3, 2, 20]),
            (70, [1, 1, 64]),
            (40, [1, 17, 80]),
            (70, [1, 2, 256]),
        ] {
            for kv_type in KvType::ALL {
                let case = Case::new(rng, l, heads, kv_type);
                let want = case.run(cx, &[]);
                let [q, k, v] = [&case.q, &case.k, &case.v]
                    .map(|m| cx.mat_to(Place::Device, Mat::from_vec(l, m.cols(), m.data().to_vec())));
                for cuts in [vec![], vec![1], vec![l - 1], vec![3, 30, 31, 32]] {
                    let mut cache = case.cache(0..0);
                    cache.move_to(cx, Place::Device);
                    let mut from = 0;
                    for to in cuts.iter().copied().chain([l]) {
                        cache.append(k.view().slice_rows(from..to), v.view().slice_rows(from..to));
                        // A copy goes on by itself and leaves the original alone.
                        let mut fork = cache.clone();
                        fork.append(k.view().slice_rows(0..1), v.view().slice_rows(0..1));
                        let out = attention(cx, q.view().slice_rows(from..to), [(0..to - from, &cache)]);
                        let what = format!("{heads:?} {kv_type} {cuts:?} {from}..{to}");
                        let width = q.cols();
                        let out = cx.mat_to(Place::Host, out);
                        assert_same_bits(out.data(), &want[from * width..to * width], &what);
                        from = to;
                    }
                    assert_eq!(cache.elements(), case.cache(0..l).elements(), "{heads:?}");
                }
            }
        }
    });
}

#[test]
fn a_batch_on_a_device_is_that_of_the_host() {
    on_gpu(|cx, rng| {
        for longest in [1, 30] {
            let parts: Vec<(usize, usize)> = (0..18).map(|i| (i * 7 % 90, 1 + i * 5 % longest)).collect();
            let l: usize = parts.iter().map(|(_, now)| now).sum();
            let case = Case::new(rng, l.max(130), [2, 3, 16], KvType::F16);
            let mut ends = 0;
            let rows: Vec<Range<usize>> = parts
                .iter()
                .map(|(_, now)| {
                    ends += now;
                    ends - now..ends
                })
                .collect();
            let caches = |place: Place| -> Vec<KvCache> {
                let there =
                    |mat: &Mat| cx.mat_to(place, Mat::from_vec(mat.rows(), mat.cols(), mat.data().to_vec()));
                let (k, v) = (there(&case.k), there(&case.v));
                let cache = |&(before, now): &(usize, usize)| {
                    let mut cache = case.cache(0..before);
                    cache.move_to(cx, place);
                    let new = before..before + now;
                    cache.append(k.view().slice_rows(new.clone()), v.view().slice_rows(new));
                    cache
                };
                parts.iter().map(cache).collect()
            };
            let q = Mat::from_vec(l, case.q.cols(), case.q.data()[..l * case.q.cols()].to_vec());
            let want = attention(cx, q.view(), rows.iter().cloned().zip(&caches(Place::Host)));
            let q = cx.mat_to(Place::Device, q);
            let got = attention(cx, q.view(), rows.iter().cloned().zip(&caches(Place::Device)));
            assert_same_bits(
                cx.mat_to(Place::Host, got).data(),
                want.data(),
                &format!("up to {longest} tokens"),
            );
        }
    });
}

#[test]
fn reference_is_softmax_attention() {
    let (l, kv_heads, per_kv, head_dim) = (70, 2, 3, 8);
    for kv_type in KvType::ALL {
        let case = Case::new(&mut Rng::new(8), l, [kv_heads, per_kv, head_dim], kv_type);
        let got = case.run(&Cx::new(1, Simd::Reference).expect("always available"), &[]);
        let wide = |x: &f32| f64::from(*x);
        let cached = |x: &f32| match kv_type {
            KvType::F32 => f64::from(*x),
            KvType::F16 => f64::from(f16_to_f32(round_to_f16(*x))),
        };
        for t in [0, 1, 63, 64, 69] {
            for head in 0..kv_heads * per_kv {
                let column = |h: usize| h * head_dim..(h + 1) * head_dim;
                let q = &case.q.row(t)[column(head)];
                let score = |i: usize| {
                    let k = &case.k.row(i)[column(head / per_kv)];
                    let dot: f64 = q.iter().zip(k).map(|(q, k)| wide(q) * cached(k)).sum();
                    (dot / (head_dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..=t).map(score).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let value = |i: usize| cached(&case.v.row(i)[column(head / per_kv)][d]);
                    let want = (0..=t).map(|i| weights[i] * value(i)).sum::<f64>() / total;
                    let got = wide(&got[t * case.q.cols() + head * head_dim + d]);
                    assert!((got - want).abs() < 1e-5, "{kv_type} t {t} head {head} d {d}: {got} {want}");
                }
            }
        }
    }
}

/// Scores that rise, fall and jump by more than exp can bridge from page to page: each of c and e is at times 0 and 1.
#[test]
fn pages_of_any_size_combine() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, rng| {
        for factors in [[1.0, 40.0, 400.0, 1.0], [400.0, 40.0, 1.0, 400.0], [1.0, 1.0, 0.0, 1.0]] {
            let mut case = Case::new(rng, 230, [2, 3, 40], KvType::F32);
            for t in 0..230 {
                case.k.row_mut(t).iter_mut().for_each(|k| *k *= factors[t / PAGE]);
            }
            let want = case.run(&reference, &[]);
            assert!(want.iter().all(|o| o.abs() <= 2.0), "a mean of values below 2");
            assert_same_bits(&case.run(cx, &[100]), &want, &format!("{factors:?} {}", cx.simd()));
        }
    });
}

/// The sentences of the contract on infinities and NaN, one by one.
#[test]
fn what_is_not_finite_stays_so() {
    const L: usize = 150;
    const AT: usize = 70;
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    let nan = |o: &[f32]| o.iter().all(|o| o.is_nan());
    on_every_simd(|cx, rng| {
        // Scores of positive queries have the sign of the key.
        let mut positive = Case::new(rng, L, [1, 1, 20], KvType::F32);
        positive.q.data_mut().iter_mut().for_each(|q| *q = q.abs() + 0.1);
        let run = |what: &str, spoil: &dyn Fn(&mut Case)| {
            let clone = |mat: &Mat| Mat::from_vec(L, 20, mat.data().to_vec());
            let mut case =
                Case { q: clone(&positive.q), k: clone(&positive.k), v: clone(&positive.v), ..positive };
            spoil(&mut case);
            let got = case.run(cx, &[]);
            assert_same_bits(&got, &case.run(&reference, &[]), &format!("{what} {}", cx.simd()));
            got
        };
        let row = |t: usize| t * 20..(t + 1) * 20;
        let fine = run("as it is", &|_| ());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let got = run("q", &|case| case.q.row_mut(AT)[3] = bad);
            assert!(nan(&got[row(AT)]), "{bad} in q");
            assert_same_bits(&got[row(AT + 1)], &fine[row(AT + 1)], "the query after it");

            let got = run("v", &|case| case.v.row_mut(AT)[3] = bad);
            let (spoilt, sound): (Vec<_>, Vec<_>) = (AT..L).flat_map(row).partition(|i| i % 20 == 3);
            assert!(spoilt.iter().all(|&i| !got[i].is_finite()), "{bad} in v");
            assert!(sound.iter().all(|&i| got[i].to_bits() == fine[i].to_bits()), "other columns");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let got = run("k", &|case| case.k.row_mut(AT)[3] = bad);
            assert!(nan(&got[AT * 20..]), "a score of {bad}");
            assert_same_bits(&got[..AT * 20], &fine[..AT * 20], "the queries before it");
        }
        let one = run("k", &|case| case.k.row_mut(AT)[3] = f32::NEG_INFINITY);
        assert!(one.iter().all(|o| o.is_finite()), "a score of -inf among others weighs nothing");
        let page = run("k", &|case| {
            (PAGE..2 * PAGE).for_each(|t| case.k.row_mut(t)[3] = f32::NEG_INFINITY);
        });
        assert!(nan(&page[PAGE * 20..]), "a page of scores of -inf");
    });
}

#[test]
fn f16_rounds_to_nearest_even_and_saturates() {
    let max = 65504.0;
    let large = [65519.0, 65520.0, 1e30, f32::INFINITY];
    for x in large {
        assert_eq!((f16_to_f32(round_to_f16(x)), f16_to_f32(round_to_f16(-x))), (max, -max));
    }
    assert!(f16_to_f32(round_to_f16(f32::NAN)).is_nan());
    // Spacing 2 above 2048: the middle goes to the even neighbour.
    let rounded = [2049.0, 2051.0, 2050.0].map(|x| f16_to_f32(round_to_f16(x)));
    assert_eq!(rounded, [2048.0, 2052.0, 2050.0]);
}

#[test]
fn copies_share_pages_and_do_not_disturb_each_other() {
    for kv_type in KvType::ALL {
        let case = Case::new(&mut Rng::new(9), 100, [2, 1, 20], kv_type);
        let mut one = case.cache(0..70);
        let before = one.elements();
        let mut two = one.clone();
        two.append(case.v.view().slice_rows(70..100), case.k.view().slice_rows(70..100));
        assert_eq!(one.elements(), before, "the original is as it was");
        assert_eq!((one.len(), two.len()), (70, 100));
        assert_eq!(two.bytes(), 128 * 2 * 40 * kv_type.bytes(), "two pages of keys and values");
        assert!(std::ptr::eq(one.page(0), two.page(0)), "full pages are shared");
        one.append(case.k.view().slice_rows(70..100), case.v.view().slice_rows(70..100));
        let (keys, values) = one.elements();
        let plain = |x: &Mat| match kv_type {
            KvType::F32 => Elements::F32(x.data().to_vec()),
            KvType::F16 => Elements::F16(x.data().iter().map(|x| round_to_f16(*x)).collect()),
        };
        assert_eq!((&keys, &values), (&plain(&case.k), &plain(&case.v)), "in the order they were given");
        let mut again = KvCache::new(2, 20, kv_type);
        again.append_elements(&keys, &values);
        assert_eq!(again.elements(), (keys, values));
    }
}
