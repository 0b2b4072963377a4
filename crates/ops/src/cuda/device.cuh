// Everything a kernel may use of the machine: types, the shape of a kernel, barriers, exchanges within a warp, tensor
// cores, asynchronous copies, conversions. Kernels include this file and `math.cuh`, no header of the toolkit and no
// intrinsic beside these, so that nvcc, NVRTC and the emulator's C++ compiler all accept them.
//
// The first half exists twice: below for NVIDIA's compilers (sm_80 and newer), and in the emulator's `emulated.h` with
// the same names for the host. The second half is plain arithmetic and shared.
//
// What a kernel must keep: every thread of a block reaches the same `sync_block`, every thread of a warp the same
// exchange or product (a thread that has returned is not waited for); no block waits for another one, since blocks
// may run one after the other; multiplication and addition are rounded separately unless `fma` is written.
#pragma once

using i8 = signed char;
using u8 = unsigned char;
using i16 = short;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;
using f32 = float;

struct alignas(8) u32x2 { u32 x, y; };
struct alignas(16) u32x4 { u32 x, y, z, w; };
struct alignas(8) f32x2 { f32 x, y; };
struct alignas(16) f32x4 { f32 x, y, z, w; };

#ifdef TANGELO_EMULATED
#include "emulated.h"
#else

// A function of the device, always part of its caller.
#define DEVICE __device__ __forceinline__
// A variable that the threads of a block share, aligned to 16. Its value is undefined when the block starts.
#define SHARED __shared__ __align__(16)
// `name` points to as many bytes as the launch asked for, aligned to 16; two names in one kernel are the same memory.
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(16) u8 dynamic_shared_bytes[];                                                        \
    type* const name = reinterpret_cast<type*>(dynamic_shared_bytes)
// KERNEL(256, add)(const f32* x, f32* y, u32 count) { ... }: found by name, launched with at most 256 threads a block.
#define KERNEL(max_threads, name) extern "C" __global__ void __launch_bounds__(max_threads) name

constexpr u32 FULL_WARP = 0xffffffffu;

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
// Writes before it are seen by all threads of the device before writes after it.
DEVICE void fence() { __threadfence(); }
DEVICE u32 atomic_add(u32* p, u32 v) { return atomicAdd(p, v); }

DEVICE u32 as_u32(f32 x) { return __float_as_uint(x); }
DEVICE f32 as_f32(u32 x) { return __uint_as_float(x); }
// `fma(f32, f32, f32)`, rounded once, `sqrtf`, `fabsf`, `rintf` (ties to even), and `min` and `max` of
// integers are the compiler's own.

// The value of lane `lane ^ mask`, of lane `lane`, of the lane `d` further (its own where there is none).
DEVICE f32 shuffle_xor(f32 v, u32 mask) { return __shfl_xor_sync(FULL_WARP, v, mask); }
DEVICE i32 shuffle_xor(i32 v, u32 mask) { return __shfl_xor_sync(FULL_WARP, v, mask); }
DEVICE u32 shuffle_xor(u32 v, u32 mask) { return __shfl_xor_sync(FULL_WARP, v, mask); }
DEVICE f32 shuffle(f32 v, u32 lane) { return __shfl_sync(FULL_WARP, v, lane); }
DEVICE i32 shuffle(i32 v, u32 lane) { return __shfl_sync(FULL_WARP, v, lane); }
DEVICE u32 shuffle(u32 v, u32 lane) { return __shfl_sync(FULL_WARP, v, lane); }
DEVICE f32 shuffle_down(f32 v, u32 d) { return __shfl_down_sync(FULL_WARP, v, d); }
DEVICE i32 shuffle_down(i32 v, u32 d) { return __shfl_down_sync(FULL_WARP, v, d); }
DEVICE u32 shuffle_down(u32 v, u32 d) { return __shfl_down_sync(FULL_WARP, v, d); }

// c + the sum of the products of four bytes, exact modulo 2^32: a unsigned or signed, b signed.
DEVICE i32 dot4_u8s8(u32 a, u32 b, i32 c) {
    i32 d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
DEVICE i32 dot4_s8s8(u32 a, u32 b, i32 c) {
    i32 d;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// Four of the eight bytes of `low` and `high` (numbered 0 to 7, lowest first): byte i of the result is the one that nibble i
// of the selector names. The highest bit of those nibbles must be clear; the upper half of the selector does not matter.
DEVICE u32 pick_bytes(u32 low, u32 high, u32 selector) {
    u32 d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(low), "r"(high), "r"(selector));
    return d;
}

// c += A·B on tensor cores, A of 16 rows, B of 8 columns. Lane 4g + t holds of A rows g (even registers) and g + 8 (odd
// ones), of B column g, of c[0], c[1] row g, columns 2t, 2t + 1 and of c[2], c[3] the same of row g + 8. A register of A
// or B holds consecutive k, lowest bits first, starting at 4t for bytes and 2t for bf16; the second half of k, if
// there is one, is in a[2], a[3], b[1].
DEVICE void mma_u8s8_k32(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_u8s8_k16(i32 (&c)[4], const u32 (&a)[2], u32 b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}
// The sum over k is f32, in an order that the hardware does not promise (the emulator's is k increasing, fused).
DEVICE void mma_bf16_k16(f32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Copies 16 bytes from global to shared memory, both addresses aligned to 16, some time before the wait for its group
// ends. A group is the copies of this thread since its last commit; other threads see them after a `sync_block` more.
DEVICE void copy_async16(void* shared, const void* global) {
    const u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the N newest groups of this thread are under way.
template <u32 N> DEVICE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// A load of 1, 2, 4, 8 or 16 bytes that are read once and that no thread of the launch writes; aligned to their size.
template <class T> DEVICE T load_once(const T* p) {
    static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "size");
    T value;
    if constexpr (sizeof(T) == 1) {
        u16 bits;
        asm("ld.global.nc.L1::no_allocate.u8 %0, [%1];" : "=h"(bits) : "l"(p));
        const u8 byte = static_cast<u8>(bits);
        memcpy(&value, &byte, 1);
    } else if constexpr (sizeof(T) == 2) {
        u16 bits;
        asm("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(bits) : "l"(p));
        memcpy(&value, &bits, 2);
    } else if constexpr (sizeof(T) == 4) {
        u32 bits;
        asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(bits) : "l"(p));
        memcpy(&value, &bits, 4);
    } else if constexpr (sizeof(T) == 8) {
        u32x2 bits;
        asm("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(bits.x), "=r"(bits.y) : "l"(p));
        memcpy(&value, &bits, 8);
    } else {
        u32x4 bits;
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
            : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
            : "l"(p));
        memcpy(&value, &bits, 16);
    }
    return value;
}

// Conversions with a NaN of any payload for NaN; with the payload that `tangelo_core::float` has they are below.
DEVICE f32 convert_half(u16 bits) {
    f32 x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
DEVICE u16 convert_to_half(f32 x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

#endif // TANGELO_EMULATED

// The sum of sixteen lanes as all operations add them up: lane i and i + 8, then 4, 2, 1. Each half of a warp has its own,
// and all its lanes get it.
DEVICE f32 fold_lanes(f32 v) {
    for (u32 width = 8; width; width /= 2) v += shuffle_xor(v, width);
    return v;
}

// Conversions with the bits of `tangelo_core::float`, also for NaN, whose payload is kept and made quiet.

// binary16, exact.
DEVICE f32 half_to_f32(u16 bits) {
    const u32 sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    return magnitude > 0x7c00u ? as_f32(sign | 0x7fc00000u | magnitude << 13) : convert_half(bits);
}

// binary16, to nearest even, to infinity from 65520 on.
DEVICE u16 f32_to_half(f32 x) {
    const u32 bits = as_u32(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<u16>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    return convert_to_half(x);
}

// bfloat16, exact.
DEVICE f32 bf16_to_f32(u16 bits) { return as_f32(static_cast<u32>(bits) << 16); }

// bfloat16, to nearest even.
DEVICE u16 f32_to_bf16(f32 x) {
    const u32 bits = as_u32(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<u16>(bits >> 16 | 0x40u);
    return static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// E4M3FN, exact: its fields put where binary32 has them are the value times 2^-120, also of subnormals.
DEVICE f32 f8e4m3_to_f32(u8 bits) {
    const u32 sign = (bits & 0x80u) << 24, magnitude = bits & 0x7fu;
    return magnitude == 0x7fu ? as_f32(sign | 0x7fc00000u) : as_f32(sign | magnitude << 20) * 0x1p120f;
}
