//! The measured loops do what they are counted as doing, and the limits are plausible.

use super::*;
use crate::dispatch::Simd;
use crate::lanes::LANES;
use crate::testing::on_gpu;

/// Contexts of every level of this machine.
fn contexts() -> impl Iterator<Item = Cx> {
    Simd::available().map(|simd| Cx::new(2, simd).expect("the level is available"))
}

#[test]
fn every_level_reads_everything() {
    let src: Vec<f32> = (0..8 * read::STREAMS * LANES).map(|i| i as f32).collect();
    let expected = (src.len() * (src.len() - 1) / 2) as f32;
    for cx in contexts() {
        let mut sum = 0.0;
        // SAFETY: `choose` returns only what the instruction set in force allows.
        unsafe { cx.choose(read::IMPLS)(&src, &mut sum) };
        assert_eq!(sum, expected, "{}", cx.simd());
    }
}

/// From any start, x → x/2 + 1 is within rounding of 2 after 64 steps, so each lane sums its twelve chains to a
/// multiple of 2 that tells how many there were.
#[test]
fn every_level_does_all_its_multiply_adds() {
    for cx in contexts() {
        let mut out = [0.0; LANES];
        // SAFETY: as above.
        unsafe { cx.choose(fma::IMPLS)(64, &mut out) };
        let chains = out[0] / 2.0;
        assert!(out.iter().all(|x| *x == out[0]), "{out:?}");
        assert!(chains == 6.0 || chains == 12.0, "{}: {out:?}", cx.simd());
    }
}

#[test]
fn work_grows_with_the_rounds() {
    for cx in contexts() {
        let (fma, int8) = (cx.choose(fma::IMPLS), cx.choose(int8::IMPLS));
        // SAFETY: as above.
        let run_fma = |rounds| unsafe { fma(rounds, &mut *black_box(&mut [0.0; LANES])) };
        // SAFETY: as above.
        let run_int8 = |rounds| unsafe { int8(rounds, &mut *black_box(&mut [0; LANES])) };
        for work in [&run_fma as &dyn Fn(usize), &run_int8] {
            let fastest = |rounds| (0..20).map(|_| elapsed(|| work(rounds))).min().expect("twenty");
            let (short, long) = (fastest(500), fastest(8000));
            // Sixteen times the work; a loop that the compiler has left out would take no longer.
            assert!(long > 4 * short, "{}: {short:?} {long:?}", cx.simd());
        }
    }
}

#[test]
fn the_limits_of_this_machine_are_plausible() {
    let cx = Cx::new(2, Simd::best()).expect("the best level is available");
    let limits = limits(&cx).expect("there is memory");
    assert_eq!((limits.threads, limits.simd), (2, Simd::best()));
    // From an emulated processor to a large server.
    for rate in [limits.read_bytes_per_s, limits.int8_ops_per_s, limits.f32_flops_per_s] {
        assert!((1e6..1e16).contains(&rate), "{limits:?}");
    }
    println!("{limits:?}");
}

#[test]
fn a_device_reads_everything() {
    on_gpu(|cx, rng| {
        let gpu = cx.gpu().expect("a device");
        for count in [1, 255, 256, 3000, 4 * 256 * 8 + 5] {
            let words: Vec<u32> = (0..4 * count).map(|_| rng.next() as u32).collect();
            let (src, sums) = (gpu.buffer(16 * count), gpu.buffer(4 * cuda::num_threads(1)));
            src.write(0, &words);
            cuda::read(&src, 1, &sums);
            let mut got = vec![0u32; cuda::num_threads(1)];
            sums.read(0, &mut got);
            let sum = |words: &[u32]| words.iter().fold(0u32, |sum, word| sum.wrapping_add(*word));
            assert_eq!(sum(&got), sum(&words), "{count}");
        }
        let rate = device_read_bytes_per_s(gpu).expect("it does not fail").expect("there is memory");
        assert!((1e6..1e14).contains(&rate), "{rate}");
    });
}

#[test]
fn the_buffer_grows_with_the_machine_within_bounds() {
    for (threads, mib) in [(1, 256), (8, 256), (32, 1024), (1000, 4096), (usize::MAX, 4096)] {
        let bytes = read::buffer_bytes(threads);
        assert_eq!(bytes, mib << 20, "{threads} threads");
        assert_eq!(bytes % read::PART_BYTES, 0);
    }
}
