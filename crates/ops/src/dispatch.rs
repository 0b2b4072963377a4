//! Choosing an implementation: once per operation, at run time, from a short list, and forceable.
//!
//! Every operation keeps a `static IMPLS: &[Impl<F>]`, best first, `reference` last. All entries of a list give
//! the same bits (principle P1), so the choice is about speed only.

use std::fmt;

/// An instruction set an implementation was written for. Within one architecture the order is that of preference;
/// which levels a machine of one level can run as well is said by [`Simd::includes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Simd {
    /// Plain scalar Rust: the definition of the operation.
    Reference,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-VNNI (`vpdpbusd` on 256 bits) and everything of [`Simd::Avx2`]: Alder Lake and later, Zen 5.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI (and everything of [`Simd::Avx2`]).
    Avx512,
    /// aarch64 with NEON and the dot products of Armv8.4 (`sdot`, `udot`): Jetson Orin, Apple M1.
    Neon,
    /// aarch64 with the 8-bit matrix products of Armv8.6 (`smmla`, `usdot`) and everything of [`Simd::Neon`]:
    /// DGX Spark, Jetson Thor, Apple M2 and later.
    I8mm,
}

impl Simd {
    /// All levels of all architectures, worst first within each.
    pub const ALL: [Simd; 6] =
        [Simd::Reference, Simd::Avx2, Simd::AvxVnni, Simd::Avx512, Simd::Neon, Simd::I8mm];

    /// The name accepted by `--simd` and `TANGELO_SIMD`.
    pub const fn name(self) -> &'static str {
        match self {
            Simd::Reference => "reference",
            Simd::Avx2 => "avx2",
            Simd::AvxVnni => "avx-vnni",
            Simd::Avx512 => "avx512",
            Simd::Neon => "neon",
            Simd::I8mm => "i8mm",
        }
    }

    /// Inverse of [`Simd::name`].
    pub fn from_name(name: &str) -> Option<Simd> {
        Simd::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The names of all levels as one text, for messages.
    pub fn names() -> String {
        Simd::ALL.map(Simd::name).join(", ")
    }

    /// Whether a machine that runs `self` runs `other` too. Not a total order: a server of the AVX-512 generation
    /// knows `vpdpbusd` in the encoding of AVX-512 and often not in that of AVX-VNNI.
    pub fn includes(self, other: Simd) -> bool {
        match other {
            Simd::Reference => true,
            Simd::Avx2 => matches!(self, Simd::Avx2 | Simd::AvxVnni | Simd::Avx512),
            Simd::Neon => matches!(self, Simd::Neon | Simd::I8mm),
            Simd::AvxVnni | Simd::Avx512 | Simd::I8mm => self == other,
        }
    }

    /// Whether this machine can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Simd::Reference => true,
            Simd::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Simd::AvxVnni => Simd::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            Simd::Avx512 => {
                Simd::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Simd::Neon | Simd::I8mm => false,
        }
    }

    /// Whether this machine can run it.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected;
        match self {
            Simd::Reference => true,
            Simd::Neon => is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod"),
            Simd::I8mm => Simd::Neon.is_available() && is_aarch64_feature_detected!("i8mm"),
            Simd::Avx2 | Simd::AvxVnni | Simd::Avx512 => false,
        }
    }

    /// Whether this machine can run it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Simd::Reference
    }

    /// The levels this machine can run, worst first.
    pub fn available() -> impl Iterator<Item = Simd> {
        Simd::ALL.into_iter().filter(|s| s.is_available())
    }

    /// The best level of this machine.
    pub fn best() -> Simd {
        Simd::available().last().unwrap_or(Simd::Reference)
    }

    /// This level if the machine can run it, else the best that it can.
    pub fn or_best(self) -> Simd {
        if self.is_available() { self } else { Simd::best() }
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

/// The best entry of `impls` that a machine of `level` can run. `impls` is sorted best first and ends with the
/// reference; a level without an entry of its own gets that of the next lower one.
pub fn choose<F: Copy>(impls: &[Impl<F>], level: Simd) -> F {
    impls.iter().find(|i| level.includes(i.simd)).expect("every list ends with the reference").run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_found_by_its_name_and_only_by_it() {
        for level in Simd::ALL {
            assert_eq!(Simd::from_name(level.name()), Some(level));
            assert!(Simd::names().split(", ").any(|name| name == level.name()));
        }
        assert_eq!(Simd::from_name("AVX2"), None);
    }

    #[test]
    fn what_a_level_includes_is_lower_transitive_and_available_with_it() {
        for a in Simd::ALL {
            assert!(a.includes(a) && a.includes(Simd::Reference));
            assert!(a.or_best().is_available());
            for b in Simd::ALL.into_iter().filter(|&b| a.includes(b)) {
                assert!(b <= a, "{a} includes {b}");
                assert!(b.is_available() || !a.is_available(), "{a} is available, {b} is not");
                assert!(Simd::ALL.into_iter().all(|c| !b.includes(c) || a.includes(c)), "{a}, {b}");
            }
        }
    }

    #[test]
    fn choosing_skips_what_the_level_lacks() {
        let all = Simd::ALL.map(|simd| Impl { simd, run: simd });
        let mut best_first = all;
        best_first.reverse();
        for level in Simd::ALL {
            assert_eq!(choose(&best_first, level), level);
        }
        let only = |simd| [Impl { simd, run: simd }, Impl { simd: Simd::Reference, run: Simd::Reference }];
        assert_eq!(choose(&only(Simd::AvxVnni), Simd::Avx512), Simd::Reference);
        assert_eq!(choose(&only(Simd::Avx2), Simd::AvxVnni), Simd::Avx2);
        assert_eq!(choose(&only(Simd::Avx2), Simd::I8mm), Simd::Reference);
        assert_eq!(choose(&only(Simd::Neon), Simd::I8mm), Simd::Neon);
        assert_eq!(choose(&only(Simd::I8mm), Simd::Neon), Simd::Reference);
    }
}
