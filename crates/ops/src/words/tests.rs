//! Every function of [`Words`] against plain arrays, on each instruction set of the machine. [`Words::dots`] is tested
//! with what it is made for, in `matmul/tests.rs`.

use super::*;
use crate::dispatch::{Impl, Simd};
use crate::lanes::LANES;
use crate::testing::Rng;

/// Sixteen words.
type Array = [u32; LANES];

/// Applies every function to `a` and `b`.
type Kernel = unsafe fn(a: &Array, b: &Array, mask: u32, n: usize) -> Vec<Array>;

/// # Safety
/// The instruction set of `W` must be available; `n < 32`.
#[inline(always)]
unsafe fn all<W: Words>(a: &Array, b: &Array, mask: u32, n: usize) -> Vec<Array> {
    // SAFETY: the arrays hold sixteen words; the caller vouches for the instruction set.
    unsafe {
        let (x, y) = (W::load(a.as_ptr().cast()), W::load(b.as_ptr().cast()));
        let mut floats = [0.0f32; LANES];
        x.shift_right_signed(8).to_floats().store(floats.as_mut_ptr());
        let words = [
            x.and(mask),
            x.or(y),
            x.xor(mask),
            x.shift_left(n),
            x.shift_right(n),
            x.shift_right_signed(n),
            x.and(0x0f0f_0f0f).lookup(&TABLE),
        ];
        let mut out = vec![floats.map(f32::to_bits)];
        for words in words {
            let mut array = [0; LANES];
            words.store(array.as_mut_ptr().cast());
            out.push(array);
        }
        out
    }
}

const TABLE: [u8; 16] = [3, 200, 5, 7, 255, 0, 1, 128, 127, 9, 60, 61, 62, 254, 90, 17];

fn plain(a: &Array, b: &Array, mask: u32, n: usize) -> Vec<Array> {
    let look_up = |a: u32| u32::from_le_bytes(a.to_le_bytes().map(|byte| TABLE[usize::from(byte & 0xf)]));
    vec![
        a.map(|a| ((a as i32 >> 8) as f32).to_bits()),
        a.map(|a| a & mask),
        std::array::from_fn(|i| a[i] | b[i]),
        a.map(|a| a ^ mask),
        a.map(|a| a << n),
        a.map(|a| a >> n),
        a.map(|a| (a as i32 >> n) as u32),
        a.map(look_up),
    ]
}

macro_rules! twins {
    ($($arch:literal, $simd:expr, $words:ty, $features:literal;)*) => {
        &[$(
            #[cfg(target_arch = $arch)]
            Impl {
                simd: $simd,
                run: {
                    #[target_feature(enable = $features)]
                    unsafe fn run(a: &Array, b: &Array, mask: u32, n: usize) -> Vec<Array> {
                        // SAFETY: the features are those of the level.
                        unsafe { all::<$words>(a, b, mask, n) }
                    }
                    run
                },
            },
        )*]
    };
}

static TWINS: &[Impl<Kernel>] = twins! {
    "x86_64", Simd::Avx2, Ymm<Maddubs>, "avx2,fma,f16c";
    "x86_64", Simd::AvxVnni, Ymm<Vnni>, "avxvnni,avx2,fma,f16c";
    "x86_64", Simd::Avx512, Zmm, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c";
    "aarch64", Simd::Neon, Quads<Sdot>, "neon,dotprod";
    "aarch64", Simd::I8mm, Quads<Usdot>, "neon,dotprod,i8mm";
};

#[test]
fn every_function_equals_plain_arrays() {
    let mut rng = Rng::new(11);
    for twin in TWINS {
        if !twin.simd.is_available() {
            eprintln!("skipped: this machine has no {}", twin.simd);
            continue;
        }
        for n in 0..32 {
            let mut word = || rng.next() as u32;
            let (a, b, mask) = (std::array::from_fn(|_| word()), std::array::from_fn(|_| word()), word());
            // SAFETY: the machine has the instruction set.
            let got = unsafe { (twin.run)(&a, &b, mask, n) };
            assert_eq!(got, plain(&a, &b, mask, n), "{} n = {n}", twin.simd);
        }
    }
}
