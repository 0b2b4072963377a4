// Products with block-quantised weights, on tensor cores of 8-bit integers; contract and order of arithmetic: mod.rs.
//
// Weights are panels of sixteen interleaved rows (packed.rs, quant.cuh), activations what quantise_rows/kernel.cu makes of
// them. Every sum within a group is an exact integer, so that only the order of groups matters, and that is always the same:
// one f32 accumulator per output. Per format there is a kernel for one token and one for up to eight (few.cuh), one for up to
// 64 or for few outputs, and one for many (tile.cuh).

#include "device.cuh"
#include "few.cuh"
#include "output.cuh"
#include "quant.cuh"
#include "tile.cuh"
#include "unit.cuh"

// `x` is for `padded` tokens; `units` is k / 32.
#define KERNELS(Format, name)                                                                                          \
    KERNEL(288, matmul_one_##name)(const u8* w, const u8* x, u32, u32 units, matmul::Output out) {                     \
        matmul::few<quant::Format, 1>(w, x, units, out);                                                               \
    }                                                                                                                  \
    KERNEL(288, matmul_eight_##name)(const u8* w, const u8* x, u32, u32 units, matmul::Output out) {                   \
        matmul::few<quant::Format, 8>(w, x, units, out);                                                               \
    }                                                                                                                  \
    KERNEL(128, matmul_low_##name)(const u8* w, const u8* x, u32 padded, u32 units, matmul::Output out) {              \
        matmul::Tile<quant::Format, 1, 4, 2, 2>::run(w, x, padded, units, out);                                        \
    }
// High tiles take long to compile; the formats of the files that NVIDIA and llama.cpp publish most have them.
#define KERNELS_WITH_HIGH(Format, name)                                                                                \
    KERNELS(Format, name)                                                                                              \
    KERNEL(256, matmul_high_##name)(const u8* w, const u8* x, u32 padded, u32 units, matmul::Output out) {             \
        matmul::Tile<quant::Format, 2, 8, 4, 2>::run(w, x, padded, units, out);                                        \
    }

KERNELS_WITH_HIGH(Q8_0, q8_0)
KERNELS_WITH_HIGH(Q4_0, q4_0)
KERNELS(Q4_1, q4_1)
KERNELS_WITH_HIGH(Q5_0, q5_0)
KERNELS(Q5_1, q5_1)
KERNELS(Q2K, q2_k)
KERNELS(Q3K, q3_k)
KERNELS_WITH_HIGH(Q4K, q4_k)
KERNELS(Q5K, q5_k)
KERNELS_WITH_HIGH(Q6K, q6_k)
KERNELS(Iq4Nl, iq4_nl)
#undef KERNELS_WITH_HIGH
#undef KERNELS
