// How the block formats are read from interleaved blocks, as `quant/interleaved.rs` describes them: what lies at offset o of
// a block starts at offset 16·o of sixteen blocks side by side, a unit per row. Each struct is the device's twin of the
// `Interleaved` of its file in `quant/`:
//
//   code(block, row, g, t, half)   the codes of elements 4j .. 4j + 4 of group g, j = t + 4·half, one per byte
//   scale(block, row, g), min(block, row, g)
#pragma once

#include "device.cuh"

// The word, and the f16, at an offset of the block of one row.
DEVICE u32 block_word(const u8* block, u32 offset, u32 row) {
    return *reinterpret_cast<const u32*>(block + 16 * offset + 4 * row);
}
DEVICE f32 block_half(const u8* block, u32 offset, u32 row) {
    return half_to_f32(*reinterpret_cast<const u16*>(block + 16 * offset + 2 * row));
}
// Moves bits from `from` to bit 4 or 2 of every byte; `from` is at least 0 and may lie on either side.
DEVICE u32 move_up(u32 w, u32 from, u32 to, u32 mask) { return (w >> from & mask) << to; }

struct Q8_0 {
    static constexpr u32 BLOCK = 32, BYTES = 34, GROUP = 32, OFFSET = 128;
    static constexpr bool HAS_MIN = false;
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        return block_word(b, 2 + 4 * (t + 4 * half), row) ^ 0x80808080u;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};

struct Q4_0 {
    static constexpr u32 BLOCK = 32, BYTES = 18, GROUP = 32, OFFSET = 8;
    static constexpr bool HAS_MIN = false;
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        return block_word(b, 2 + 4 * t, row) >> 4 * half & 0x0f0f0f0fu;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};

struct Q4_1 {
    static constexpr u32 BLOCK = 32, BYTES = 20, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        return block_word(b, 4 + 4 * t, row) >> 4 * half & 0x0f0f0f0fu;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8* b, u32 row, u32) { return block_half(b, 2, row); }
};

struct Q5_0 {
    static constexpr u32 BLOCK = 32, BYTES = 22, GROUP = 32, OFFSET = 16;
    static constexpr bool HAS_MIN = false;
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        const u32 low = block_word(b, 6 + 4 * t, row) >> 4 * half & 0x0f0f0f0fu;
        return low | move_up(block_word(b, 2, row), t + 4 * half, 4, 0x01010101u);
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};

struct Q5_1 {
    static constexpr u32 BLOCK = 32, BYTES = 24, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        const u32 low = block_word(b, 8 + 4 * t, row) >> 4 * half & 0x0f0f0f0fu;
        return low | move_up(block_word(b, 4, row), t + 4 * half, 4, 0x01010101u);
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8* b, u32 row, u32) { return block_half(b, 2, row); }
};

struct Iq4Nl {
    static constexpr u32 BLOCK = 32, BYTES = 18, GROUP = 32, OFFSET = 128;
    static constexpr bool HAS_MIN = false;
    // The levels of ggml's table plus 128, lowest index in the lowest byte.
    DEVICE static u32 level(u32 index) {
        const u64 low = 0x766a5d4f3f2d1801u, high = 0xf1d9c5b5a6998d81u;
        return static_cast<u32>((index < 8 ? low : high) >> 8 * (index & 7)) & 0xffu;
    }
    DEVICE static u32 code(const u8* b, u32 row, u32, u32 t, u32 half) {
        const u32 index = block_word(b, 2 + 4 * t, row) >> 4 * half;
        return level(index & 15) | level(index >> 8 & 15) << 8 | level(index >> 16 & 15) << 16 | level(index >> 24 & 15) << 24;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32) { return block_half(b, 0, row); }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};

// The 2-bit fields of elements 4j .. 4j + 4 of group g; the 64 bytes that hold them start at `offset`.
DEVICE u32 pair(const u8* b, u32 offset, u32 row, u32 g, u32 j) {
    return block_word(b, offset + 32 * (g / 8) + 16 * (g % 2) + 4 * j, row) >> 2 * (g % 8 / 2) & 0x03030303u;
}

struct Q2K {
    static constexpr u32 BLOCK = 256, BYTES = 84, GROUP = 16, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    DEVICE static u32 code(const u8* b, u32 row, u32 g, u32 t, u32) { return pair(b, 16, row, g, t); }
    DEVICE static f32 scale(const u8* b, u32 row, u32 g) {
        return block_half(b, 80, row) * f32(block_word(b, 4 * (g / 4), row) >> 8 * (g % 4) & 0xfu);
    }
    DEVICE static f32 min(const u8* b, u32 row, u32 g) {
        return -(block_half(b, 82, row) * f32(block_word(b, 4 * (g / 4), row) >> (8 * (g % 4) + 4) & 0xfu));
    }
};

struct Q3K {
    static constexpr u32 BLOCK = 256, BYTES = 110, GROUP = 16, OFFSET = 4;
    static constexpr bool HAS_MIN = false;
    DEVICE static u32 code(const u8* b, u32 row, u32 g, u32 t, u32) {
        const u32 third = move_up(block_word(b, 16 * (g % 2) + 4 * t, row), g / 2, 2, 0x01010101u);
        return pair(b, 32, row, g, t) | third;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32 g) {
        const u32 low = block_word(b, 96 + 4 * (g % 8 / 4), row) >> (8 * (g % 4) + 4 * (g / 8)) & 0xfu;
        const u32 high = block_word(b, 104, row) >> (8 * (g % 4) + 2 * (g / 4)) & 3u;
        return block_half(b, 108, row) * f32(static_cast<i32>(low | high << 4) - 32);
    }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};

// Scale (which = 0) or minimum (1) of group g of Q4_K and Q5_K, 6 bits.
DEVICE u32 k_scale(const u8* b, u32 row, u32 which, u32 g) {
    const u32 own = block_word(b, 4 + 4 * which, row) >> 8 * (g % 4);
    const u32 low = block_word(b, 12, row) >> (8 * (g % 4) + 4 * which) & 0xfu;
    return g < 4 ? own & 0x3fu : low | (own >> 6 & 3u) << 4;
}

struct Q4K {
    static constexpr u32 BLOCK = 256, BYTES = 144, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    DEVICE static u32 code(const u8* b, u32 row, u32 g, u32 t, u32 half) {
        return block_word(b, 16 + 32 * (g / 2) + 4 * (t + 4 * half), row) >> 4 * (g % 2) & 0x0f0f0f0fu;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32 g) { return block_half(b, 0, row) * f32(k_scale(b, row, 0, g)); }
    DEVICE static f32 min(const u8* b, u32 row, u32 g) { return -(block_half(b, 2, row) * f32(k_scale(b, row, 1, g))); }
};

struct Q5K {
    static constexpr u32 BLOCK = 256, BYTES = 176, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    DEVICE static u32 code(const u8* b, u32 row, u32 g, u32 t, u32 half) {
        const u32 j = t + 4 * half;
        const u32 low = block_word(b, 48 + 32 * (g / 2) + 4 * j, row) >> 4 * (g % 2) & 0x0f0f0f0fu;
        return low | move_up(block_word(b, 16 + 4 * j, row), g, 4, 0x01010101u);
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32 g) { return block_half(b, 0, row) * f32(k_scale(b, row, 0, g)); }
    DEVICE static f32 min(const u8* b, u32 row, u32 g) { return -(block_half(b, 2, row) * f32(k_scale(b, row, 1, g))); }
};

struct Q6K {
    static constexpr u32 BLOCK = 256, BYTES = 210, GROUP = 16, OFFSET = 32;
    static constexpr bool HAS_MIN = false;
    DEVICE static u32 code(const u8* b, u32 row, u32 g, u32 t, u32) {
        const u32 r = g % 8;
        const u32 low = block_word(b, 64 * (g / 8) + 16 * (r % 4) + 4 * t, row) >> r / 4 * 4 & 0x0f0f0f0fu;
        return low | pair(b, 128, row, g, t) << 4;
    }
    DEVICE static f32 scale(const u8* b, u32 row, u32 g) {
        const i32 code = static_cast<i8>(block_word(b, 192 + 4 * (g / 4), row) >> 8 * (g % 4));
        return block_half(b, 208, row) * f32(code);
    }
    DEVICE static f32 min(const u8*, u32, u32) { return 0; }
};
