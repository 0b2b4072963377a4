//! Everything that `device.cuh` offers does on the emulator what the machine would do.

mod common;

use common::{Words, noise, open};
use tangelo_core::float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use tangelo_emulator::{Setting, set};
use tangelo_ops::math;

/// A shuffled order of threads must change nothing that is right.
const SEEDS: [u64; 4] = [0, 1, 2, 3];

fn with_seeds(test: impl Fn()) {
    for seed in SEEDS {
        set(Setting::Seed(seed));
        test();
    }
    set(Setting::Seed(0));
}

#[test]
fn lanes_exchange() {
    let Some(device) = open() else { return };
    with_seeds(|| {
        let out = Words::new(4 * 64);
        device.launch("test_exchange", 1, 64, args!(out.address)).expect("it runs");
        for (i, got) in out.read().chunks(4).enumerate() {
            let (warp, lane) = (i / 32 * 32, i % 32);
            let down = if lane + 3 < 32 { i + 3 } else { i };
            let half = i / 16 * 16;
            let want = [1000 + (i ^ 5), 1000 + warp + 7, 1000 + down, (half..half + 16).sum()];
            assert_eq!(got, want.map(|n| n as u32), "thread {i}");
        }
    });
}

#[test]
fn a_barrier_orders_a_block_and_lets_threads_leave() {
    let Some(device) = open() else { return };
    let input = noise(3 * 200, 1);
    let reversed: Vec<u32> = input.chunks(200).flat_map(|block| block.iter().rev().copied()).collect();
    with_seeds(|| {
        let (from, to) = (Words::of(&input), Words::new(600));
        device.launch("test_reverse", 3, 256, args!(from.address, to.address, 200u32)).expect("it runs");
        assert_eq!(to.read(), reversed);
    });
}

#[test]
fn a_missing_barrier_shows() {
    let Some(device) = open() else { return };
    let input = noise(256, 2);
    let (from, to) = (Words::of(&input), Words::new(256));
    device.launch("test_reverse_hastily", 1, 256, args!(from.address, to.address)).expect("it runs");
    let got = to.read();
    assert_eq!(got[0], u32::MAX, "the first thread reads what nobody has written");
    assert_eq!(got[255], input[0]);
}

#[test]
fn products_are_exact_at_every_position() {
    let Some(device) = open() else { return };
    for (kernel, k) in [("test_mma_u8s8_k32", 32), ("test_mma_u8s8_k16", 16)] {
        with_seeds(|| {
            let (a, b, c) = (noise(4 * k, 3), noise(2 * k, 4), noise(16 * 8, 5));
            let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
            let (a_bytes, b_bytes) = (bytes(&a), bytes(&b));
            let (a, b, out) = (Words::of(&a), Words::of(&b), Words::of(&c));
            device.launch(kernel, 1, 32, args!(a.address, b.address, out.address)).expect("it runs");
            for (i, got) in out.read().into_iter().enumerate() {
                let (row, column) = (i / 8, i % 8);
                let dot = (0..k).map(|j| {
                    i32::from(a_bytes[row * k + j]) * i32::from(b_bytes[column * k + j].cast_signed())
                });
                let want = c[i].cast_signed().wrapping_add(dot.sum());
                assert_eq!(got.cast_signed(), want, "{kernel}: row {row}, column {column}");
            }
        });
    }
}

#[test]
fn bf16_products_are_fused_with_k_increasing() {
    let Some(device) = open() else { return };
    // Exponents near zero, so that neither infinities nor NaN arise.
    let tame = |w: &u32| (w & 0x807f_807f) | 0x3f00_3f80;
    let halves = |words: &[u32]| -> Vec<f32> {
        words.iter().flat_map(|w| [*w as u16, (w >> 16) as u16]).map(bf16_to_f32).collect()
    };
    let a: Vec<u32> = noise(16 * 8, 6).iter().map(tame).collect();
    let b: Vec<u32> = noise(8 * 8, 7).iter().map(tame).collect();
    let c: Vec<u32> = (0..128u8).map(|i| f32::from(i).to_bits()).collect();
    let (a_values, b_values) = (halves(&a), halves(&b));
    let (a, b, out) = (Words::of(&a), Words::of(&b), Words::of(&c));
    device.launch("test_mma_bf16_k16", 1, 32, args!(a.address, b.address, out.address)).expect("it runs");
    for (i, got) in out.read().into_iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let add = |sum: f32, k: usize| a_values[row * 16 + k].mul_add(b_values[column * 16 + k], sum);
        let want = (0..16).fold(f32::from_bits(c[i]), add);
        assert_eq!(f32::from_bits(got), want, "row {row}, column {column}");
    }
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let Some(device) = open() else { return };
    let input = noise(256, 8);
    with_seeds(|| {
        let (from, to) = (Words::of(&input), Words::new(256));
        device.launch("test_copy_async", 1, 32, args!(from.address, to.address)).expect("it runs");
        assert_eq!(to.read(), input);
        device.launch("test_copy_async_hastily", 1, 32, args!(from.address, to.address)).expect("it runs");
        let got = to.read();
        assert_eq!(got[..128], [u32::MAX; 128], "nothing has waited for the first group");
        assert_eq!(got[128..], input[128..]);
    });
}

#[test]
fn small_things() {
    let Some(device) = open() else { return };
    let input = noise(32 * 4, 9);
    let bytes: Vec<u8> = input.iter().flat_map(|w| w.to_le_bytes()).collect();
    let dots = |a: u32, b: u32| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes().map(u8::cast_signed));
        let sum = |a: [i32; 4]| a.iter().zip(b).map(|(a, b)| a * i32::from(b)).sum::<i32>() - 7;
        [sum(a.map(i32::from)), sum(a.map(|a| i32::from(a.cast_signed())))].map(i32::cast_unsigned)
    };
    let (from, out, total) = (Words::of(&input), Words::new(6 * 32), Words::of(&[0]));
    device
        .launch("test_small_things", 3, 32, args!(from.address, out.address, total.address))
        .expect("it runs");
    for (i, got) in out.read().chunks(6).enumerate() {
        let half = u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        let [unsigned, signed] = dots(input[i], input[4 * i + 1]);
        let four = input[4 * i] ^ input[4 * i + 3];
        let want = [four, input[2 * i + 1], half.into(), bytes[i].into(), unsigned, signed];
        assert_eq!(got, want, "thread {i}");
    }
    assert_eq!(total.read(), [3 * (1..=32).sum::<u32>()]);
}

/// `math.cuh` and the conversions of `device.cuh` have the bits of their definitions in Rust.
#[test]
fn functions_have_the_bits_of_the_host() {
    let Some(device) = open() else { return };
    const COUNT: u32 = 1 << 16;
    // A prime, so that all exponents and all low bits occur; and the halves one by one.
    for (start, step) in
        [(0, 65_521), (1 << 31 | 0x3a83_0000, 1021), (0x7f80_0000 - 1000, 1), (7u32, 65_536u32)]
    {
        let out = Words::new(8 * COUNT as usize);
        device
            .launch("test_math", COUNT.div_ceil(256), 256, args!(out.address, start, step, COUNT))
            .expect("it runs");
        for (i, got) in (0u32..).zip(out.read().chunks(8)) {
            let bits = start.wrapping_add(i.wrapping_mul(step));
            let (x, half) = (f32::from_bits(bits), (bits >> 16) as u16);
            let functions = [math::exp(x), math::silu(x), math::sigmoid(x), math::softplus(x)];
            for (f, (want, got)) in functions.iter().zip(got).enumerate() {
                let same = want.to_bits() == *got || (want.is_nan() && f32::from_bits(*got).is_nan());
                assert!(same, "function {f} of {x:e} ({bits:#x}): {want:e}, got {:e}", f32::from_bits(*got));
            }
            let short = u32::from(f32_to_f16(x)) | u32::from(f32_to_bf16(x)) << 16;
            let kept = u32::from(f32_to_f16(x.clamp(-65504.0, 65504.0)));
            let want = [f16_to_f32(half).to_bits(), bf16_to_f32(half).to_bits(), short, kept];
            assert_eq!(got[4..], want, "conversions of {bits:#x}");
        }
    }
}
