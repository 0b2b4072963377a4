//! Choosing an implementation: once per operation, at run time, from a short list, and forceable.
//!
//! Every operation keeps a `static IMPLS: &[Impl<F>]`, best first, `reference` last. All entries of a list give
//! the same bits (principle P1), so the choice is about speed only.

use std::fmt;

/// An instruction set an implementation was written for, in increasing order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Simd {
    /// Plain scalar Rust: the definition of the operation.
    Reference,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI (and everything of [`Simd::Avx2`]).
    Avx512,
}

impl Simd {
    /// All levels, worst first.
    pub const ALL: [Simd; 3] = [Simd::Reference, Simd::Avx2, Simd::Avx512];

    /// The name accepted by `--simd` and `TANGELO_SIMD`.
    pub const fn name(self) -> &'static str {
        match self {
            Simd::Reference => "reference",
            Simd::Avx2 => "avx2",
            Simd::Avx512 => "avx512",
        }
    }

    /// Inverse of [`Simd::name`].
    pub fn from_name(name: &str) -> Option<Simd> {
        Simd::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Simd::Reference => true,
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => {
                Simd::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The levels this machine can run, worst first.
    pub fn available() -> impl Iterator<Item = Simd> {
        Simd::ALL.into_iter().filter(|s| s.is_available())
    }

    /// The best level of this machine.
    pub fn best() -> Simd {
        Simd::available().last().unwrap_or(Simd::Reference)
    }
}

impl fmt::Display for Simd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One implementation of an operation. `F` is the operation's function-pointer type; the pointer may be
/// `unsafe` because it needs `simd` to be available.
#[derive(Clone, Copy, Debug)]
pub struct Impl<F> {
    /// What the machine must have.
    pub simd: Simd,
    /// The code.
    pub run: F,
}

/// The best entry of `impls` not above `level`. `impls` is sorted best first and ends with the reference.
pub fn choose<F: Copy>(impls: &[Impl<F>], level: Simd) -> F {
    impls.iter().find(|i| i.simd <= level).expect("every list ends with the reference").run
}
