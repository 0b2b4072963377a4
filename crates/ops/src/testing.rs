//! What the property tests of this crate share: seeded random inputs, every instruction set in one loop, and
//! equality of bits.

use crate::device::Cx;
use crate::dispatch::Simd;

/// splitmix64: small, seedable, good enough for test inputs.
pub struct Rng(u64);

impl Rng {
    /// A generator with the given seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// `n` values in (-scale, scale).
    pub fn uniform(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| ((self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale).collect()
    }

    /// `n` random bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Runs `test` with every instruction set of this machine on one and on three threads, and names what the
/// machine lacks.
pub fn on_every_simd(test: impl Fn(&Cx, &mut Rng)) {
    for simd in Simd::ALL {
        if !simd.is_available() {
            eprintln!("skipped: this machine has no {simd}");
            continue;
        }
        for threads in [1, 3] {
            let cx = Cx::new(threads, simd).expect("available");
            test(&cx, &mut Rng::new(7));
        }
    }
}

/// Equality of bits, except that all NaNs are one.
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan());
        assert!(same, "{what}: element {i} is {g:e} ({:#x}), want {w:e} ({:#x})", g.to_bits(), w.to_bits());
    }
}

/// Runs `test` in a context with a GPU: an emulated one unless `TANGELO_TEST_GPU` asks for the machine's. Says why it is
/// skipped if there is none.
pub fn on_gpu(test: impl Fn(&Cx, &mut Rng)) {
    if std::env::var_os("TANGELO_TEST_GPU").is_none()
        && let Err(reason) = tangelo_emulator::load()
    {
        eprintln!("skipped: {reason}");
        return;
    }
    let gpu = crate::cuda::Gpu::open(0).expect("a device");
    let cx = Cx::new(2, Simd::best()).expect("available").with_gpu(gpu);
    test(&cx, &mut Rng::new(7));
    cx.check_gpu().expect("the device did not fail");
}

/// Checks a gradient against central differences of `f` in f64 around `x`.
#[track_caller]
pub fn assert_gradient(f: impl Fn(&[f64]) -> f64, x: &[f32], gradient: &[f32], what: &str) {
    assert_eq!(x.len(), gradient.len(), "{what}: length");
    let mut at: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let largest = gradient.iter().fold(0.0f32, |max, g| max.max(g.abs()));
    assert!(largest > 0.0, "{what}: no gradient at all");
    // Of long gradients some elements are enough.
    for i in (0..x.len()).step_by(x.len().div_ceil(97)) {
        let (before, step) = (at[i], 1e-5);
        at[i] = before + step;
        let above = f(&at);
        at[i] = before - step;
        let below = f(&at);
        at[i] = before;
        let want = (above - below) / (2.0 * step);
        let error = (f64::from(gradient[i]) - want).abs();
        let bound = 2e-4 * want.abs() + 2e-5 * f64::from(largest);
        assert!(error <= bound, "{what}: element {i} is {}, want {want}", gradient[i]);
    }
}
