// Rows of the table of embeddings: a block per token, a thread per element at a time. Rows are as files have them (not
// interleaved): only as many are read as there are tokens, so nothing is gained by loading more than a byte or two.
//
// Each format says what element i of a block is, in the words and with the arithmetic of its file in `quant/`.

#include "device.cuh"

DEVICE f32 half_at(const u8* p) { return half_to_f32(u16(p[0] | p[1] << 8)); }
// Bits `from ..` of a byte.
DEVICE u32 bits(u8 byte, u32 from, u32 mask) { return byte >> from & mask; }
// Code i of 32: byte j holds j in the low nibble, j + 16 in the high one.
DEVICE i32 nibble(const u8* qs, u32 i) { return i32(bits(qs[i % 16], i / 16 * 4, 15)); }
DEVICE i32 fifth(const u8* qh, u32 i) { return i32(bits(qh[i / 8], i % 8, 1)) << 4; }
// Code i of 256, two bits each, of Q2_K, Q3_K and Q6_K.
DEVICE i32 pair(const u8* qs, u32 i) { return i32(bits(qs[i / 128 * 32 + i % 32], i / 32 % 4 * 2, 3)); }
// Code i of 256, four bits each, of Q4_K and Q5_K.
DEVICE i32 nibble_k(const u8* qs, u32 i) { return i32(bits(qs[i / 64 * 32 + i % 32], i / 32 % 2 * 4, 15)); }

// Scale (which = 0) or minimum (1) g of the twelve bytes of Q4_K and Q5_K.
DEVICE i32 six_bits(const u8* packed, u32 which, u32 g) {
    if (g < 4) return i32(packed[4 * which + g] & 63);
    return i32(bits(packed[4 + g], 4 * which, 15) | bits(packed[4 * which + g - 4], 6, 3) << 4);
}

// Element of group g of Q4_K or Q5_K.
DEVICE f32 affine(const u8* b, u32 g, i32 code) {
    const f32 scale = half_at(b) * f32(six_bits(b + 4, 0, g)), min = -(half_at(b + 2) * f32(six_bits(b + 4, 1, g)));
    return scale * f32(code) + min;
}

struct F32 {
    static constexpr u32 LEN = 1, BYTES = 4;
};
DEVICE f32 element(F32, const u8* b, u32) {
    return as_f32(b[0] | u32(b[1]) << 8 | u32(b[2]) << 16 | u32(b[3]) << 24);
}

struct F16 {
    static constexpr u32 LEN = 1, BYTES = 2;
};
DEVICE f32 element(F16, const u8* b, u32) { return half_at(b); }

struct BF16 {
    static constexpr u32 LEN = 1, BYTES = 2;
};
DEVICE f32 element(BF16, const u8* b, u32) { return bf16_to_f32(u16(b[0] | b[1] << 8)); }

struct F8E4M3 {
    static constexpr u32 LEN = 1, BYTES = 1;
};
DEVICE f32 element(F8E4M3, const u8* b, u32) { return f8e4m3_to_f32(b[0]); }

struct Q8_0 {
    static constexpr u32 LEN = 32, BYTES = 34;
};
DEVICE f32 element(Q8_0, const u8* b, u32 i) { return half_at(b) * f32(i8(b[2 + i])); }

struct Q4_0 {
    static constexpr u32 LEN = 32, BYTES = 18;
};
DEVICE f32 element(Q4_0, const u8* b, u32 i) { return half_at(b) * f32(nibble(b + 2, i) - 8); }

struct Q4_1 {
    static constexpr u32 LEN = 32, BYTES = 20;
};
DEVICE f32 element(Q4_1, const u8* b, u32 i) { return half_at(b) * f32(nibble(b + 4, i)) + half_at(b + 2); }

struct Q5_0 {
    static constexpr u32 LEN = 32, BYTES = 22;
};
DEVICE f32 element(Q5_0, const u8* b, u32 i) {
    return half_at(b) * f32((nibble(b + 6, i) | fifth(b + 2, i)) - 16);
}

struct Q5_1 {
    static constexpr u32 LEN = 32, BYTES = 24;
};
DEVICE f32 element(Q5_1, const u8* b, u32 i) {
    return half_at(b) * f32(nibble(b + 8, i) | fifth(b + 4, i)) + half_at(b + 2);
}

struct Iq4Nl {
    static constexpr u32 LEN = 32, BYTES = 18;
};
DEVICE f32 element(Iq4Nl, const u8* b, u32 i) {
    // The levels plus 128, four to a word, the lowest byte first.
    const u32 index = u32(nibble(b + 2, i)), quarter = index / 4;
    const u32 codes = quarter == 0 ? 0x3f2d1801u : quarter == 1 ? 0x766a5d4fu : quarter == 2 ? 0xa6998d81u : 0xf1d9c5b5u;
    return half_at(b) * f32(i32(codes >> 8 * (index % 4) & 255) - 128);
}

struct Q2K {
    static constexpr u32 LEN = 256, BYTES = 84;
};
DEVICE f32 element(Q2K, const u8* b, u32 i) {
    const u8 codes = b[i / 16];
    const f32 scale = half_at(b + 80) * f32(codes & 15), min = -(half_at(b + 82) * f32(codes >> 4));
    return scale * f32(pair(b + 16, i)) + min;
}

struct Q3K {
    static constexpr u32 LEN = 256, BYTES = 110;
};
DEVICE f32 element(Q3K, const u8* b, u32 i) {
    const u32 g = i / 16;
    const u32 code = bits(b[96 + g % 8], g / 8 * 4, 15) | bits(b[104 + g % 4], g / 4 * 2, 3) << 4;
    const i32 third = i32(bits(b[i % 32], i / 32, 1)) << 2;
    return half_at(b + 108) * f32(i32(code) - 32) * f32((pair(b + 32, i) | third) - 4);
}

struct Q4K {
    static constexpr u32 LEN = 256, BYTES = 144;
};
DEVICE f32 element(Q4K, const u8* b, u32 i) { return affine(b, i / 32, nibble_k(b + 16, i)); }

struct Q5K {
    static constexpr u32 LEN = 256, BYTES = 176;
};
DEVICE f32 element(Q5K, const u8* b, u32 i) {
    const i32 high = i32(bits(b[16 + i % 32], i / 32, 1)) << 4;
    return affine(b, i / 32, nibble_k(b + 48, i) | high);
}

struct Q6K {
    static constexpr u32 LEN = 256, BYTES = 210;
};
DEVICE f32 element(Q6K, const u8* b, u32 i) {
    const i32 low = i32(bits(b[i / 128 * 64 + i % 64], i / 64 % 2 * 4, 15));
    const f32 scale = half_at(b + 208) * f32(i8(b[192 + i / 16]));
    return scale * f32((low | pair(b + 128, i) << 4) - 32);
}

template <class Format> DEVICE void embed(const u8* table, const u32* ids, f32* out, u32 cols, f32 scale) {
    const u8* const row = table + u64(ids[blockIdx.x]) * (cols / Format::LEN * Format::BYTES);
    out += u64(blockIdx.x) * cols;
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) {
        out[i] = element(Format{}, row + i / Format::LEN * Format::BYTES, i % Format::LEN) * scale;
    }
}

#define EMBED(name, Format)                                                                                            \
    KERNEL(256, name)(const u8* table, const u32* ids, f32* out, u32 cols, f32 scale) {                               \
        embed<Format>(table, ids, out, cols, scale);                                                                   \
    }

EMBED(embed_f32, F32)
EMBED(embed_f16, F16)
EMBED(embed_bf16, BF16)
EMBED(embed_f8e4m3, F8E4M3)
EMBED(embed_q8_0, Q8_0)
EMBED(embed_q4_0, Q4_0)
EMBED(embed_q4_1, Q4_1)
EMBED(embed_q5_0, Q5_0)
EMBED(embed_q5_1, Q5_1)
EMBED(embed_q2_k, Q2K)
EMBED(embed_q3_k, Q3K)
EMBED(embed_q4_k, Q4K)
EMBED(embed_q5_k, Q5K)
EMBED(embed_q6_k, Q6K)
EMBED(embed_iq4_nl, Iq4Nl)
