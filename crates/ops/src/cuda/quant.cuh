// How the block formats are read: the device's twins of the files in `quant/`, which say what the fields mean.
//
// Weights lie in panels of sixteen rows (`quant/interleaved.rs`): what lies at offset o of a block starts at offset 16 * o
// of sixteen blocks side by side, a word or an f16 per row. A unit is 32 elements of k: a group of 32, or two of 16. Of each
// unit lane 4g + t takes what an m16n8k32 product wants from it, with rows 2g and 2g + 1 of the panel as rows g and g + 8 of
// the product: they lie side by side, so a warp reads 256 bytes at once.
//
//   Raw read(block, unit, g, t)       the bytes, as they are; `unit` counts within the block
//   codes(raw, unit, t, a)            words t and t + 4 of the unit, a code per byte: a[0], a[1] of both rows, then a[2], a[3]
//   scales(raw, unit)                 scale and minimum of both rows, per group
#pragma once

#include "device.cuh"

namespace quant {

DEVICE u32x2 words(const u8* block, u32 offset, u32 g) {
    return *reinterpret_cast<const u32x2*>(block + 16 * offset + 8 * g);
}
DEVICE u32 halves(const u8* block, u32 offset, u32 g) {
    return *reinterpret_cast<const u32*>(block + 16 * offset + 4 * g);
}
DEVICE f32 lower(u32 halves) { return convert_half(static_cast<u16>(halves)); }
DEVICE f32 upper(u32 halves) { return convert_half(static_cast<u16>(halves >> 16)); }

// Of `GROUPS` groups and two rows.
template <u32 GROUPS> struct Scales {
    f32 scale[GROUPS][2], min[GROUPS][2];
};

// Word t of sixteen bytes holds the codes of word t in its low nibbles and of word t + 4 in its high ones.
DEVICE void split_nibbles(u32x2 q, u32 (&a)[4]) {
    a[0] = q.x & 0x0f0f0f0fu, a[1] = q.y & 0x0f0f0f0fu;
    a[2] = q.x >> 4 & 0x0f0f0f0fu, a[3] = q.y >> 4 & 0x0f0f0f0fu;
}

// Adds bit 4 from a plane of bits, where byte b holds the bits of elements b, 4 + b, 8 + b, ...
DEVICE void add_fifth(u32x2 plane, u32 t, u32 (&a)[4]) {
    a[0] |= plane.x << (4 - t) & 0x10101010u, a[1] |= plane.y << (4 - t) & 0x10101010u;
    a[2] |= plane.x >> t & 0x10101010u, a[3] |= plane.y >> t & 0x10101010u;
}

// ---- blocks of 32 --------------------------------------------------------------------------------------------------------

struct Q8_0 {
    static constexpr u32 BLOCK = 32, BYTES = 34, GROUP = 32, OFFSET = 128;
    static constexpr bool HAS_MIN = false;
    struct Raw {
        u32x2 first, second;
        u32 d;
    };
    DEVICE static Raw read(const u8* block, u32, u32 g, u32 t) {
        return {words(block, 2 + 4 * t, g), words(block, 18 + 4 * t, g), halves(block, 0, g)};
    }
    DEVICE static void codes(const Raw& raw, u32, u32, u32 (&a)[4]) {
        a[0] = raw.first.x ^ 0x80808080u, a[1] = raw.first.y ^ 0x80808080u;
        a[2] = raw.second.x ^ 0x80808080u, a[3] = raw.second.y ^ 0x80808080u;
    }
    DEVICE static Scales<1> scales(const Raw& raw, u32) { return {{{lower(raw.d), upper(raw.d)}}, {}}; }
};

struct Q4_0 {
    static constexpr u32 BLOCK = 32, BYTES = 18, GROUP = 32, OFFSET = 8;
    static constexpr bool HAS_MIN = false;
    struct Raw {
        u32x2 q;
        u32 d;
    };
    DEVICE static Raw read(const u8* block, u32, u32 g, u32 t) { return {words(block, 2 + 4 * t, g), halves(block, 0, g)}; }
    DEVICE static void codes(const Raw& raw, u32, u32, u32 (&a)[4]) { split_nibbles(raw.q, a); }
    DEVICE static Scales<1> scales(const Raw& raw, u32) { return {{{lower(raw.d), upper(raw.d)}}, {}}; }
};

struct Q4_1 {
    static constexpr u32 BLOCK = 32, BYTES = 20, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    struct Raw {
        u32x2 q;
        u32 d, m;
    };
    DEVICE static Raw read(const u8* block, u32, u32 g, u32 t) {
        return {words(block, 4 + 4 * t, g), halves(block, 0, g), halves(block, 2, g)};
    }
    DEVICE static void codes(const Raw& raw, u32, u32, u32 (&a)[4]) { split_nibbles(raw.q, a); }
    DEVICE static Scales<1> scales(const Raw& raw, u32) {
        return {{{lower(raw.d), upper(raw.d)}}, {{lower(raw.m), upper(raw.m)}}};
    }
};

struct Q5_0 {
    static constexpr u32 BLOCK = 32, BYTES = 22, GROUP = 32, OFFSET = 16;
    static constexpr bool HAS_MIN = false;
    struct Raw {
        u32x2 q, fifth;
        u32 d;
    };
    DEVICE static Raw read(const u8* block, u32, u32 g, u32 t) {
        return {words(block, 6 + 4 * t, g), words(block, 2, g), halves(block, 0, g)};
    }
    DEVICE static void codes(const Raw& raw, u32, u32 t, u32 (&a)[4]) {
        split_nibbles(raw.q, a);
        add_fifth(raw.fifth, t, a);
    }
    DEVICE static Scales<1> scales(const Raw& raw, u32) { return {{{lower(raw.d), upper(raw.d)}}, {}}; }
};

struct Q5_1 {
    static constexpr u32 BLOCK = 32, BYTES = 24, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    struct Raw {
        u32x2 q, fifth;
        u32 d, m;
    };
    DEVICE static Raw read(const u8* block, u32, u32 g, u32 t) {
        return {words(block, 8 + 4 * t, g), words(block, 4, g), halves(block, 0, g), halves(block, 2, g)};
    }
    DEVICE static void codes(const Raw& raw, u32, u32 t, u32 (&a)[4]) {
        split_nibbles(raw.q, a);
        add_fifth(raw.fifth, t, a);
    }
    DEVICE static Scales<1> scales(const Raw& raw, u32) {
        return {{{lower(raw.d), upper(raw.d)}}, {{lower(raw.m), upper(raw.m)}}};
    }
};

struct Iq4Nl {
    static constexpr u32 BLOCK = 32, BYTES = 18, GROUP = 32, OFFSET = 128;
    static constexpr bool HAS_MIN = false;
    using Raw = Q4_0::Raw;
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) { return Q4_0::read(block, unit, g, t); }
    DEVICE static void codes(const Raw& raw, u32, u32, u32 (&a)[4]) {
        look_up(raw.q.x, a[0], a[2]);
        look_up(raw.q.y, a[1], a[3]);
    }
    DEVICE static Scales<1> scales(const Raw& raw, u32) { return {{{lower(raw.d), upper(raw.d)}}, {}}; }

    // The levels plus 128 of the low nibbles of q, and of the high ones. Bytes are picked from eight levels at a time; bit 3
    // of an index says from which eight.
    DEVICE static void look_up(u32 q, u32& low, u32& high) {
        constexpr u32 LEVELS[4] = {0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
        const u32 index = q & 0x77777777u, which = 0x32103210u | (q & 0x88888888u) >> 1;
        u32 picked[2]; // Of nibbles 0 to 3 and 4 to 7.
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 below = pick_bytes(LEVELS[0], LEVELS[1], index >> 16 * half);
            const u32 above = pick_bytes(LEVELS[2], LEVELS[3], index >> 16 * half);
            picked[half] = pick_bytes(below, above, which >> 16 * half);
        }
        low = pick_bytes(picked[0], picked[1], 0x6420), high = pick_bytes(picked[0], picked[1], 0x7531);
    }
};

// ---- blocks of 256 -------------------------------------------------------------------------------------------------------

// Words t of both groups of 16 of a unit, of 64 bytes at `offset` with two bits of each code.
struct Pairs {
    u32x2 first, second;
    DEVICE static Pairs read(const u8* block, u32 offset, u32 unit, u32 g, u32 t) {
        const u32 at = offset + 32 * (unit / 4) + 4 * t;
        return {words(block, at, g), words(block, at + 16, g)};
    }
    DEVICE void unpack(u32 unit, u32 (&a)[4]) const {
        const u32 from = 2 * (unit % 4);
        a[0] = first.x >> from & 0x03030303u, a[1] = first.y >> from & 0x03030303u;
        a[2] = second.x >> from & 0x03030303u, a[3] = second.y >> from & 0x03030303u;
    }
};

struct Q2K {
    static constexpr u32 BLOCK = 256, BYTES = 84, GROUP = 16, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    struct Raw {
        Pairs q;
        u32x2 codes;
        u32 d, dmin;
    };
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) {
        return {Pairs::read(block, 16, unit, g, t), words(block, 4 * (unit / 2), g), halves(block, 80, g), halves(block, 82, g)};
    }
    DEVICE static void codes(const Raw& raw, u32 unit, u32, u32 (&a)[4]) { raw.q.unpack(unit, a); }
    DEVICE static Scales<2> scales(const Raw& raw, u32 unit) {
        const u32 from = 16 * (unit % 2), x = raw.codes.x >> from, y = raw.codes.y >> from;
        const f32 d[2] = {lower(raw.d), upper(raw.d)}, m[2] = {-lower(raw.dmin), -upper(raw.dmin)};
        Scales<2> s;
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            s.scale[h][0] = d[0] * f32(x >> 8 * h & 0xfu), s.scale[h][1] = d[1] * f32(y >> 8 * h & 0xfu);
            s.min[h][0] = m[0] * f32(x >> (8 * h + 4) & 0xfu), s.min[h][1] = m[1] * f32(y >> (8 * h + 4) & 0xfu);
        }
        return s;
    }
};

struct Q3K {
    static constexpr u32 BLOCK = 256, BYTES = 110, GROUP = 16, OFFSET = 4;
    static constexpr bool HAS_MIN = false;
    struct Raw {
        Pairs q;
        u32x2 third[2], low, high;
        u32 d;
    };
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) {
        return {Pairs::read(block, 32, unit, g, t),
            {words(block, 4 * t, g), words(block, 16 + 4 * t, g)},
            words(block, 96 + 4 * (unit % 4 / 2), g),
            words(block, 104, g),
            halves(block, 108, g)};
    }
    DEVICE static void codes(const Raw& raw, u32 unit, u32, u32 (&a)[4]) {
        raw.q.unpack(unit, a);
        const u32 third[4] = {raw.third[0].x, raw.third[0].y, raw.third[1].x, raw.third[1].y};
#pragma unroll
        for (u32 i = 0; i < 4; i++) a[i] |= (third[i] >> unit & 0x01010101u) << 2;
    }
    DEVICE static Scales<2> scales(const Raw& raw, u32 unit) {
        const u32 low = 16 * (unit % 2) + 4 * (unit / 4), high = 16 * (unit % 2) + 2 * (unit / 2);
        const f32 d[2] = {lower(raw.d), upper(raw.d)};
        Scales<2> s;
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            const u32 x = (raw.low.x >> (low + 8 * h) & 0xfu) | (raw.high.x >> (high + 8 * h) & 3u) << 4;
            const u32 y = (raw.low.y >> (low + 8 * h) & 0xfu) | (raw.high.y >> (high + 8 * h) & 3u) << 4;
            s.scale[h][0] = d[0] * f32(i32(x) - 32), s.scale[h][1] = d[1] * f32(i32(y) - 32);
        }
        return s;
    }
};

// What Q4_K and Q5_K begin with: d and dmin, then eight scales and eight minima of 6 bits (`quant/k_scales.rs`).
struct Header {
    u32 d, dmin;
    u32x2 scales, mins, both;
    DEVICE static Header read(const u8* block, u32 g) {
        return {halves(block, 0, g), halves(block, 2, g), words(block, 4, g), words(block, 8, g), words(block, 12, g)};
    }
    // `which` is 0 for a scale, 1 for a minimum; `own` is the word of the four whose lower bits are together.
    DEVICE static f32 code(u32 own, u32 both, u32 which, u32 unit) {
        const u32 from = 8 * (unit % 4), early = own >> from & 0x3fu;
        const u32 late = (both >> (from + 4 * which) & 0xfu) | (own >> (from + 6) & 3u) << 4;
        return f32(unit < 4 ? early : late);
    }
    DEVICE Scales<1> unpack(u32 unit) const {
        return {{{lower(d) * code(scales.x, both.x, 0, unit), upper(d) * code(scales.y, both.y, 0, unit)}},
            {{-lower(dmin) * code(mins.x, both.x, 1, unit), -upper(dmin) * code(mins.y, both.y, 1, unit)}}};
    }
};

// Words t and t + 4 of 32 bytes with two units in their nibbles.
struct Nibbles {
    u32x2 first, second;
    DEVICE static Nibbles read(const u8* block, u32 offset, u32 g, u32 t) {
        return {words(block, offset + 4 * t, g), words(block, offset + 16 + 4 * t, g)};
    }
    DEVICE void unpack(u32 from, u32 (&a)[4]) const {
        a[0] = first.x >> from & 0x0f0f0f0fu, a[1] = first.y >> from & 0x0f0f0f0fu;
        a[2] = second.x >> from & 0x0f0f0f0fu, a[3] = second.y >> from & 0x0f0f0f0fu;
    }
};

struct Q4K {
    static constexpr u32 BLOCK = 256, BYTES = 144, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    struct Raw {
        Nibbles q;
        Header header;
    };
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) {
        return {Nibbles::read(block, 16 + 32 * (unit / 2), g, t), Header::read(block, g)};
    }
    DEVICE static void codes(const Raw& raw, u32 unit, u32, u32 (&a)[4]) { raw.q.unpack(4 * (unit % 2), a); }
    DEVICE static Scales<1> scales(const Raw& raw, u32 unit) { return raw.header.unpack(unit); }
};

struct Q5K {
    static constexpr u32 BLOCK = 256, BYTES = 176, GROUP = 32, OFFSET = 0;
    static constexpr bool HAS_MIN = true;
    struct Raw {
        Nibbles q, fifth;
        Header header;
    };
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) {
        return {Nibbles::read(block, 48 + 32 * (unit / 2), g, t), Nibbles::read(block, 16, g, t), Header::read(block, g)};
    }
    DEVICE static void codes(const Raw& raw, u32 unit, u32, u32 (&a)[4]) {
        raw.q.unpack(4 * (unit % 2), a);
        const u32 fifth[4] = {raw.fifth.first.x, raw.fifth.first.y, raw.fifth.second.x, raw.fifth.second.y};
#pragma unroll
        for (u32 i = 0; i < 4; i++) a[i] |= (fifth[i] >> unit & 0x01010101u) << 4;
    }
    DEVICE static Scales<1> scales(const Raw& raw, u32 unit) { return raw.header.unpack(unit); }
};

struct Q6K {
    static constexpr u32 BLOCK = 256, BYTES = 210, GROUP = 16, OFFSET = 32;
    static constexpr bool HAS_MIN = false;
    struct Raw {
        Nibbles low;
        Pairs high;
        u32x2 codes;
        u32 d;
    };
    DEVICE static Raw read(const u8* block, u32 unit, u32 g, u32 t) {
        return {Nibbles::read(block, 64 * (unit / 4) + 32 * (unit % 2), g, t),
            Pairs::read(block, 128, unit, g, t),
            words(block, 192 + 4 * (unit / 2), g),
            halves(block, 208, g)};
    }
    DEVICE static void codes(const Raw& raw, u32 unit, u32, u32 (&a)[4]) {
        u32 high[4];
        raw.low.unpack(4 * (unit % 4 / 2), a);
        raw.high.unpack(unit, high);
#pragma unroll
        for (u32 i = 0; i < 4; i++) a[i] |= high[i] << 4;
    }
    DEVICE static Scales<2> scales(const Raw& raw, u32 unit) {
        const u32 from = 16 * (unit % 2), x = raw.codes.x >> from, y = raw.codes.y >> from;
        const f32 d[2] = {lower(raw.d), upper(raw.d)};
        return {{{d[0] * f32(static_cast<i8>(x)), d[1] * f32(static_cast<i8>(y))},
                    {d[0] * f32(static_cast<i8>(x >> 8)), d[1] * f32(static_cast<i8>(y >> 8))}},
            {}};
    }
};

} // namespace quant
