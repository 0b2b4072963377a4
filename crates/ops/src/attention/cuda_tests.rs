//! The device against the host, by bits: shapes, cuts around the borders of pages, batches, copies of caches that part,
//! moves between places, graphs.

use super::*;
use crate::device::Place;
use crate::testing::{Rng, assert_same_bits, on_gpu};

/// Queries, keys and values of one sequence on the host.
struct Case {
    q: Mat,
    k: Mat,
    v: Mat,
    heads: [usize; 3],
    kv_type: KvType,
}

/// A cache on the host and its twin on the device, to which the same is appended.
#[derive(Clone)]
struct Twins {
    host: KvCache,
    device: KvCache,
}

fn on_device(cx: &Cx, view: View<'_>) -> Mat {
    let rows = (0..view.rows()).flat_map(|row| view.row(row).iter().copied());
    cx.mat_to(Place::Device, Mat::from_vec(view.rows(), view.cols(), rows.collect()))
}

fn to_host(cx: &Cx, mat: Mat) -> Vec<f32> {
    cx.mat_to(Place::Host, mat).data().to_vec()
}

impl Case {
    /// H, K, D.
    fn new(rng: &mut Rng, l: usize, heads: [usize; 3], kv_type: KvType) -> Case {
        let [query_heads, kv_heads, dim] = heads;
        let mut mat = |heads: usize| Mat::from_vec(l, heads * dim, rng.uniform(l * heads * dim, 2.0));
        Case { q: mat(query_heads), k: mat(kv_heads), v: mat(kv_heads), heads, kv_type }
    }

    fn twins(&self, cx: &Cx) -> Twins {
        let host = KvCache::new(self.heads[1], self.heads[2], self.kv_type);
        let mut device = host.clone();
        device.move_to(cx, Place::Device);
        Twins { host, device }
    }

    /// Appends rows to both twins.
    fn append(&self, cx: &Cx, twins: &mut Twins, rows: Range<usize>) {
        let [k, v] = [&self.k, &self.v].map(|mat| mat.view().slice_rows(rows.clone()));
        twins.host.append(k, v);
        twins.device.append(on_device(cx, k).view(), on_device(cx, v).view());
    }

    /// Appends rows to both twins, and attends from them.
    fn step(&self, cx: &Cx, twins: &mut Twins, rows: Range<usize>) {
        self.append(cx, twins, rows.clone());
        self.attend(cx, twins, rows);
    }

    fn attend(&self, cx: &Cx, twins: &Twins, rows: Range<usize>) {
        let q = self.q.view().slice_rows(rows.clone());
        let want = attention(cx, q, [(0..q.rows(), &twins.host)]);
        let got = attention(cx, on_device(cx, q).view(), [(0..q.rows(), &twins.device)]);
        let what = format!("{:?} {} rows {rows:?}", self.heads, self.kv_type);
        assert_same_bits(&to_host(cx, got), want.data(), &what);
    }
}

/// H, K, D: of published models, and odd ones.
const SHAPES: [[usize; 3]; 6] = [[40, 8, 128], [4, 2, 16], [6, 3, 20], [8, 1, 64], [3, 1, 7], [2, 1, 264]];

#[test]
fn calls_cut_around_the_borders_of_pages_equal_the_host() {
    on_gpu(|cx, rng| {
        for (i, heads) in SHAPES.into_iter().enumerate() {
            for kv_type in KvType::ALL {
                let case = Case::new(rng, 135, heads, kv_type);
                let cuts: &[usize] = match i {
                    0 => &[0, 61, 63, 64, 65, 129],
                    _ => &[0, 1, 3, 40, 62, 63, 64, 65, 66, 83, 127, 128, 129, 130, 135],
                };
                let mut twins = case.twins(cx);
                for cut in cuts.windows(2) {
                    case.step(cx, &mut twins, cut[0]..cut[1]);
                }
                assert_eq!(twins.device.elements(), twins.host.elements(), "{heads:?} {kv_type}");
            }
        }
    });
}

#[test]
fn wide_heads_and_tiles_of_every_width_equal_the_host() {
    on_gpu(|cx, rng| {
        for heads in [[2, 1, 64], [3, 1, 80], [2, 1, 96], [1, 1, 200], [2, 2, 256]] {
            for kv_type in KvType::ALL {
                let case = Case::new(rng, 150, heads, kv_type);
                let mut twins = case.twins(cx);
                case.step(cx, &mut twins, 0..100);
                case.step(cx, &mut twins, 100..150);
            }
        }
    });
}

#[test]
fn a_deep_cache_equals_the_host() {
    on_gpu(|cx, rng| {
        // More pages than are combined at once, and than the smallest table has room for.
        let l = 140 * PAGE + 5;
        let case = Case::new(rng, l, [1, 1, 4], KvType::F16);
        let mut twins = case.twins(cx);
        case.append(cx, &mut twins, 0..1000);
        case.append(cx, &mut twins, 1000..l - 19);
        case.step(cx, &mut twins, l - 19..l - 2);
        case.step(cx, &mut twins, l - 2..l - 1);
        case.step(cx, &mut twins, l - 1..l);
    });
}

#[test]
fn ragged_batches_equal_the_host() {
    on_gpu(|cx, rng| {
        // More sequences than one launch takes; some decode, some have few tokens, some many, some none.
        let parts: Vec<(usize, usize)> =
            (0..20).map(|i| (i * 23 % 150, [1, 1, 0, 7, 1, 40][i % 6])).collect();
        let l: usize = parts.iter().map(|(_, now)| now).sum();
        let case = Case::new(rng, 200, [4, 2, 16], KvType::F32);
        let batch = Case::new(rng, l, [4, 2, 16], KvType::F32);
        let mut all: Vec<Twins> = parts.iter().map(|_| case.twins(cx)).collect();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (twins, &(before, now)) in all.iter_mut().zip(&parts) {
            case.append(cx, twins, 0..before);
            let start = ranges.last().map_or(0, |rows| rows.end);
            ranges.push(start..start + now);
        }
        let [q, k, v] = [&batch.q, &batch.k, &batch.v].map(|mat| on_device(cx, mat.view()));
        append(
            batch.k.view(),
            batch.v.view(),
            ranges.iter().cloned().zip(all.iter_mut().map(|t| &mut t.host)),
        );
        append(k.view(), v.view(), ranges.iter().cloned().zip(all.iter_mut().map(|t| &mut t.device)));
        let want = attention(cx, batch.q.view(), ranges.iter().cloned().zip(all.iter().map(|t| &t.host)));
        let got = attention(cx, q.view(), ranges.iter().cloned().zip(all.iter().map(|t| &t.device)));
        assert_same_bits(&to_host(cx, got), want.data(), "a batch");
    });
}

#[test]
fn copies_part_and_pages_move() {
    on_gpu(|cx, rng| {
        for kv_type in KvType::ALL {
            let case = Case::new(rng, 150, [6, 3, 20], kv_type);
            let mut one = case.twins(cx);
            case.step(cx, &mut one, 0..70);
            let before = one.host.elements();
            let mut two = one.clone();
            case.attend(cx, &two, 65..70);
            case.step(cx, &mut two, 90..150);
            assert_eq!((one.device.elements(), one.device.len()), (before, 70), "the original is as it was");
            case.step(cx, &mut one, 71..72);
            case.step(cx, &mut two, 70..71);
            for twins in [&mut one, &mut two] {
                assert_eq!(twins.device.bytes(), twins.host.bytes());
                let elements = twins.device.elements();
                assert_eq!(elements, twins.host.elements());
                twins.device.move_to(cx, Place::Host);
                assert_eq!((twins.device.place(), twins.device.elements()), (Place::Host, elements.clone()));
                twins.device.move_to(cx, Place::Device);
                twins.device.append_elements(&elements.0, &elements.1);
                twins.host.append_elements(&elements.0, &elements.1);
                assert_eq!(twins.device.elements(), twins.host.elements(), "appended on the device");
                case.step(cx, twins, 80..83);
            }
        }
    });
}

#[test]
fn later_positions_do_not_show() {
    on_gpu(|cx, rng| {
        for l in [10, 80] {
            let mut case = Case::new(rng, 70 + l, [5, 1, 16], KvType::F32);
            for t in [75, 79] {
                case.k.row_mut(t).fill(f32::NAN);
                case.v.row_mut(t).fill(f32::NAN);
            }
            let mut twins = case.twins(cx);
            case.append(cx, &mut twins, 0..70);
            case.step(cx, &mut twins, 70..70 + l);
        }
    });
}

/// Steps of decoding are one graph, also when a page is added.
#[test]
fn steps_are_launched_again() {
    on_gpu(|cx, rng| {
        let gpu = cx.gpu().expect("there is one");
        let case = Case::new(rng, 150, [5, 1, 20], KvType::F16);
        let mut twins = case.twins(cx);
        case.step(cx, &mut twins, 0..50);
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|mat| on_device(cx, mat.view()));
        for t in 50..150 {
            let [device_q, device_k, device_v] = [&q, &k, &v].map(|mat| mat.view().slice_rows(t..t + 1));
            let got = gpu.record(|| {
                twins.device.append(device_k, device_v);
                attention(cx, device_q, [(0..1, &twins.device)])
            });
            let [q, k, v] = [&case.q, &case.k, &case.v].map(|mat| mat.view().slice_rows(t..t + 1));
            twins.host.append(k, v);
            let want = attention(cx, q, [(0..1, &twins.host)]);
            assert_same_bits(&to_host(cx, got), want.data(), &format!("step {t}"));
        }
        assert_eq!(gpu.num_graphs(), 1);
    });
}
