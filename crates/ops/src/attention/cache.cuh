// What the kernels of attention are told of sequences and their caches (written by cuda.rs), and how a page lies in memory
// (page.rs).
#pragma once

#include "device.cuh"

constexpr u32 PAGE = 64;

// A cache: its length, then the addresses of its pages. The host writes addresses before they are needed; `append` moves
// the length on, so that what kernels are given stays the same from token to token.
struct alignas(8) Cache {
    u32 length;
    u32 ticket; // Blocks of `append` that are done; 0 between launches.

    DEVICE const u64* pages() const { return reinterpret_cast<const u64*>(this + 1); }
};

// Rows first .. first + count of the batch. `behind` of the positions of the cache come after them.
struct CachedSequence {
    Cache* cache;
    u32 first, count;
    u32 behind, unused;

    // Positions that its row t sees.
    DEVICE u32 seen_by(u32 t) const { return cache->length - behind - count + t + 1; }
};
struct CachedSequences {
    CachedSequence at[16];
};

// The keys of a head in a page: four strips of sixteen positions, each (D, 16).
template <class E> DEVICE E* keys_of(u64 page, u32 kv_head, u32 dim) {
    return reinterpret_cast<E*>(page) + u64(kv_head) * PAGE * dim;
}

// The values of a head in a page: strips of sixteen columns, each (64, 16), the last one (64, D mod 16).
template <class E> DEVICE E* values_of(u64 page, u32 kv_heads, u32 kv_head, u32 dim) {
    return keys_of<E>(page, kv_heads + kv_head, dim);
}

DEVICE u32 pages_of(u32 positions) { return (positions + PAGE - 1) / PAGE; }

// Exactly this number; of NaN, some NaN.
DEVICE f32 widen(f32 x) { return x; }
DEVICE f32 widen(u16 bits) { return convert_half(bits); }

// The larger of a running maximum and a number that may be NaN, which is passed over.
DEVICE f32 larger(f32 x, f32 maximum) { return x > maximum ? x : maximum; }

DEVICE f32 minus_infinity() { return as_f32(0xff800000u); }
