//! Every implementation against the reference level, cut at every place; the reference against f64; sharing.

use super::*;
use crate::device::Mat;
use crate::dispatch::Simd;
use crate::testing::{Rng, assert_same_bits, on_every_simd};

struct Case {
    q: Mat,
    k: Mat,
    v: Mat,
    kv_heads: usize,
    head_dim: usize,
}

impl Case {
    fn new(rng: &mut Rng, l: usize, kv_heads: usize, per_kv: usize, head_dim: usize) -> Case {
        let mut mat = |cols: usize| Mat::from_vec(l, cols, rng.uniform(l * cols, 2.0));
        let width = kv_heads * head_dim;
        Case { q: mat(width * per_kv), k: mat(width), v: mat(width), kv_heads, head_dim }
    }

    /// All rows, in calls that end at `cuts`.
    fn run(&self, cx: &Cx, cuts: &[usize]) -> Vec<f32> {
        let l = self.q.rows();
        let mut cache = KvCache::new(self.kv_heads, self.head_dim);
        let mut out = Mat::from_vec(l, self.q.cols(), vec![f32::NAN; l * self.q.cols()]);
        let mut from = 0;
        for &to in cuts.iter().chain([&l]) {
            let rows = from..to;
            cache.append(self.k.view().slice_rows(rows.clone()), self.v.view().slice_rows(rows.clone()));
            let q = self.q.view().slice_rows(rows.clone());
            attention(cx, q, &cache, &mut out.view_mut().slice_rows(rows));
            from = to;
        }
        out.data().to_vec()
    }
}

#[test]
fn any_cut_on_any_implementation_equals_the_reference() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, rng| {
        for (l, kv_heads, per_kv, head_dim) in
            [(1, 1, 1, 16), (5, 2, 2, 24), (70, 1, 5, 12), (130, 2, 17, 64), (66, 2, 5, 128), (9, 3, 1, 80)]
        {
            let case = Case::new(rng, l, kv_heads, per_kv, head_dim);
            let want = case.run(&reference, &[]);
            let one_by_one: Vec<usize> = (1..l).collect();
            for cuts in [&[][..], &[l / 2], &[l / 3, l / 2], &one_by_one] {
                let what = format!("{l} tokens, head {head_dim}, {} calls, {}", cuts.len() + 1, cx.simd());
                assert_same_bits(&case.run(cx, cuts), &want, &what);
            }
        }
    });
}

#[test]
fn reference_is_softmax_attention() {
    let (l, kv_heads, per_kv, head_dim) = (70, 2, 3, 8);
    let case = Case::new(&mut Rng::new(8), l, kv_heads, per_kv, head_dim);
    let got = case.run(&Cx::new(1, Simd::Reference).expect("always available"), &[]);
    let wide = |x: &f32| f64::from(*x);
    for t in [0, 1, 63, 64, 69] {
        for head in 0..kv_heads * per_kv {
            let column = |h: usize| h * head_dim..(h + 1) * head_dim;
            let q = &case.q.row(t)[column(head)];
            let score = |i: usize| {
                let k = &case.k.row(i)[column(head / per_kv)];
                let dot: f64 = q.iter().zip(k).map(|(q, k)| wide(q) * wide(k)).sum();
                (dot / (head_dim as f64).sqrt()).exp()
            };
            let weights: Vec<f64> = (0..=t).map(score).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_dim {
                let value = |i: usize| wide(&case.v.row(i)[column(head / per_kv)][d]);
                let want = (0..=t).map(|i| weights[i] * value(i)).sum::<f64>() / total;
                let got = wide(&got[t * case.q.cols() + head * head_dim + d]);
                assert!((got - want).abs() < 1e-5, "t {t} head {head} d {d}: {got} {want}");
            }
        }
    }
}

#[test]
fn copies_share_pages_and_do_not_disturb_each_other() {
    let case = Case::new(&mut Rng::new(9), 100, 2, 1, 4);
    let mut one = KvCache::new(2, 4);
    one.append(case.k.view().slice_rows(0..70), case.v.view().slice_rows(0..70));
    let (keys, values) = one.rows();
    let mut two = one.clone();
    two.append(case.v.view().slice_rows(70..100), case.k.view().slice_rows(70..100));
    assert_eq!(one.rows(), (keys, values), "the original is as it was");
    assert_eq!((one.len(), two.len()), (70, 100));
    assert!(std::ptr::eq(one.page(0), two.page(0)), "full pages are shared");
    one.append(case.k.view().slice_rows(70..100), case.v.view().slice_rows(70..100));
    assert_eq!(one.rows(), (case.k.data().to_vec(), case.v.data().to_vec()));
}
