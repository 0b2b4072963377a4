// Products with block-quantised weights, on tensor cores of 8-bit integers; contract and order of arithmetic: mod.rs.
//
// Weights are panels of sixteen interleaved rows (packed.rs), read as they are by whichever lane needs them as fragment:
// lane 4g + t takes word t of rows g and g + 8, in four pieces of 32 bytes. Activations are 8-bit codes with a record per block of
// 32 (quantise_rows/kernel.cu). Sums within a group are exact integers. They start at MAGIC - offset · (sum of codes), so that
// the sum without offset, seen as f32, is 1.5 · 2^23 + n: subtracting that gives f32(n) without a conversion.
//
// One token (`one`) is a matter of reading weights: eight warps take groups in turn and one adds up what they find, in order.
// More tokens (`tile`) share each fragment of weights; every warp keeps its own outputs and goes through all groups in order.

#include "device.cuh"
#include "quant.cuh"

constexpr i32 MAGIC = 0x4b400000;
constexpr f32 MAGIC_FLOAT = 12582912.0f;

struct alignas(16) Record {
    f32 d, d_sum;
    i32 sum[2];
};

// Where group g of 32 elements `unit` lies: the block, and the number of its first group in it.
template <class F> DEVICE const u8* block_of(const u8* panel, u32 unit) {
    return panel + u64(unit / (F::BLOCK / 32)) * (16 * F::BYTES);
}
template <class F> DEVICE u32 group_of(u32 unit) { return unit % (F::BLOCK / 32) * (32 / F::GROUP); }

template <class F> DEVICE i32 sum_of(const Record& r, u32 group) {
    return F::GROUP == 32 ? r.sum[0] + r.sum[1] : r.sum[group];
}
template <class F> DEVICE f32 d_sum_of(const Record& r, u32 group) {
    return F::GROUP == 32 ? r.d_sum : r.d * f32(r.sum[group]);
}

// The codes of one unit of sixteen rows, as one fragment of 32 or two of 16.
template <class F> struct Weights {
    u32 codes[4];
    f32 scale[32 / F::GROUP][2], min[32 / F::GROUP][2];

    DEVICE void read(const u8* panel, u32 unit, u32 g, u32 t) {
        const u8* block = block_of<F>(panel, unit);
        const u32 group = group_of<F>(unit);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = g + 8 * (i % 2), half = i / 2;
            codes[i] = F::GROUP == 32 ? F::code(block, row, group, t, half) : F::code(block, row, group + half, t, 0);
        }
#pragma unroll
        for (u32 h = 0; h < 32 / F::GROUP; h++) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                scale[h][i] = F::scale(block, g + 8 * i, group + h);
                if (F::HAS_MIN) min[h][i] = F::min(block, g + 8 * i, group + h);
            }
        }
    }

    // The exact sums of group h over eight columns; b are the columns' codes of the unit.
    DEVICE void multiply(i32 (&c)[4], u32 h, const u32 (&b)[2]) const {
        if (F::GROUP == 32) {
            mma_u8s8_k32(c, codes, b);
        } else {
            const u32 half[2] = {codes[2 * h], codes[2 * h + 1]};
            mma_u8s8_k16(c, half, b[h]);
        }
    }
};

// ---- one token -----------------------------------------------------------------------------------------------------------

// Units that a warp reads at a time: their loads are under way together.
constexpr u32 UNROLL = 4;
// Warps that multiply: two panels, four warps each.
constexpr u32 PRODUCERS = 8, PANELS = 2, SLOTS = PRODUCERS / PANELS;
// Units of a round.
constexpr u32 ROUND = SLOTS * UNROLL;

struct alignas(8) Term {
    f32 a, b;
};

// 32 outputs per block of 288 threads. In every round the eight warps leave, for each group and row, f32(n) and scale · d
// (and min and d · sum) in one of two stages, while the ninth adds up those of the round before, a row per lane.
template <class F>
DEVICE void one(const u8* weights, u32 rows, u32 cols, const u8* codes, const Record* records, const f32* bias, f32* out) {
    constexpr u32 PER_UNIT = 32 / F::GROUP, GROUPS = ROUND * PER_UNIT;
    SHARED Term products[2][GROUPS][32];
    SHARED Term minima[F::HAS_MIN ? 2 : 1][F::HAS_MIN ? GROUPS : 1][32];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 units = cols / 32, rounds = (units + ROUND - 1) / ROUND;
    const u32 panel_bytes = cols / F::BLOCK * (16 * F::BYTES), panel = warp % PANELS;
    const u32 last_panel = (rows + 15) / 16 - 1, number = min(blockIdx.x * PANELS + panel, last_panel);
    const u8* mine = weights + u64(number) * panel_bytes;
    f32 sum = 0;
    for (u32 round = 0; round <= rounds; round++) {
        const u32 stage = round % 2;
        if (warp < PRODUCERS && round < rounds) {
            const u32 first = round * ROUND + warp / PANELS * UNROLL;
            Weights<F> weights_of[UNROLL];
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) weights_of[i].read(mine, min(first + i, units - 1), g, t);
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                const u32 unit = first + i;
                if (unit >= units) continue;
                const Weights<F>& w = weights_of[i];
                const Record record = records[unit];
                // Column 0 is the token, the other seven are zeros.
                const u32* x = reinterpret_cast<const u32*>(codes + 32 * unit);
                const u32 b[2] = {g == 0 ? x[t] : 0, g == 0 ? x[t + 4] : 0};
#pragma unroll
                for (u32 h = 0; h < PER_UNIT; h++) {
                    const i32 begin = MAGIC - i32(F::OFFSET) * sum_of<F>(record, h);
                    i32 c[4] = {begin, begin, begin, begin};
                    w.multiply(c, h, b);
                    const u32 group = (unit - round * ROUND) * PER_UNIT + h;
                    if (t == 0) {
                        for (u32 r = 0; r < 2; r++) {
                            const u32 row = 16 * panel + g + 8 * r;
                            products[stage][group][row] = Term{as_f32(c[2 * r]) - MAGIC_FLOAT, w.scale[h][r] * record.d};
                            if (F::HAS_MIN) minima[stage][group][row] = Term{w.min[h][r], d_sum_of<F>(record, h)};
                        }
                    }
                }
            }
        }
        if (warp == PRODUCERS && round > 0) {
            const u32 groups = min(GROUPS, units * PER_UNIT - (round - 1) * GROUPS);
#pragma unroll 8
            for (u32 group = 0; group < groups; group++) {
                const Term product = products[stage ^ 1][group][lane];
                sum = fma(product.a, product.b, sum);
                if (F::HAS_MIN) {
                    const Term min = minima[stage ^ 1][group][lane];
                    sum = fma(min.a, min.b, sum);
                }
            }
        }
        sync_block();
    }
    const u32 row = blockIdx.x * 32 + lane;
    if (warp == PRODUCERS && row < rows) out[row] = bias ? sum + bias[row] : sum;
}

// ---- several tokens ------------------------------------------------------------------------------------------------------

// Units per stage of activations, and stages.
constexpr u32 STEP = 2, STAGES = 3;
// Bytes from one token's codes to the next in shared memory: fragments are then read without conflicts.
constexpr u32 PITCH = STEP * 32 + 16;

template <u32 TOKENS> struct alignas(16) Stage {
    u8 codes[TOKENS][PITCH];
    Record records[STEP][TOKENS];
};

// 8 warps: 8 / ACROSS of them one above the other, each M panels high; ACROSS side by side, each N times eight tokens wide.
template <class F, u32 M, u32 N, u32 ACROSS>
DEVICE void tile(
    const u8* weights, u32 rows, u32 cols, const u8* codes, const Record* records, u32 tokens, const f32* bias, f32* out) {
    constexpr u32 TOKENS = ACROSS * N * 8, PER_UNIT = 32 / F::GROUP;
    SHARED Stage<TOKENS> stages[STAGES];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 first_token = blockIdx.x * TOKENS, column = warp % ACROSS * N * 8;
    const u32 first_panel = (blockIdx.y * (8 / ACROSS) + warp / ACROSS) * M, last_panel = (rows + 15) / 16 - 1;
    const u32 units = cols / 32, steps = (units + STEP - 1) / STEP, blocks = cols / 32;
    const u32 panel_bytes = cols / F::BLOCK * (16 * F::BYTES);

    // Tokens past the last one are copies of it, whose outputs go nowhere.
    auto fetch = [&](u32 step) {
        if (step < steps) {
            Stage<TOKENS>& stage = stages[step % STAGES];
            const u32 here = min(STEP, units - step * STEP);
            for (u32 i = threadIdx.x; i < TOKENS * here * 2; i += 256) {
                const u32 token = i / (here * 2), piece = i % (here * 2);
                const u64 row = min(first_token + token, tokens - 1);
                copy_async16(stage.codes[token] + 16 * piece, codes + row * cols + step * STEP * 32 + 16 * piece);
            }
            for (u32 i = threadIdx.x; i < TOKENS * here; i += 256) {
                const u32 token = i % TOKENS, unit = i / TOKENS;
                const u64 row = min(first_token + token, tokens - 1);
                copy_async16(&stage.records[unit][token], records + row * blocks + step * STEP + unit);
            }
        }
        copy_async_commit();
    };

    const u8* panels[M];
    for (u32 m = 0; m < M; m++) panels[m] = weights + u64(min(first_panel + m, last_panel)) * panel_bytes;
    f32 sum[M][N][4] = {};
    Weights<F> next[M];
    for (u32 m = 0; m < M; m++) next[m].read(panels[m], 0, g, t);
    for (u32 step = 0; step < STAGES - 1; step++) fetch(step);
    for (u32 step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        sync_block();
        fetch(step + STAGES - 1);
        const Stage<TOKENS>& stage = stages[step % STAGES];
        for (u32 i = 0; i < STEP; i++) {
            const u32 unit = step * STEP + i;
            if (unit >= units) break;
            Weights<F> w[M];
#pragma unroll
            for (u32 m = 0; m < M; m++) {
                w[m] = next[m];
                next[m].read(panels[m], min(unit + 1, units - 1), g, t);
            }
#pragma unroll
            for (u32 n = 0; n < N; n++) {
                const u32* x = reinterpret_cast<const u32*>(stage.codes[column + 8 * n + g] + 32 * i);
                const u32 b[2] = {x[t], x[t + 4]};
                const Record left = stage.records[i][column + 8 * n + 2 * t];
                const Record right = stage.records[i][column + 8 * n + 2 * t + 1];
#pragma unroll
                for (u32 h = 0; h < PER_UNIT; h++) {
                    const i32 begin[2] = {
                        MAGIC - i32(F::OFFSET) * sum_of<F>(left, h), MAGIC - i32(F::OFFSET) * sum_of<F>(right, h)};
#pragma unroll
                    for (u32 m = 0; m < M; m++) {
                        i32 c[4] = {begin[0], begin[1], begin[0], begin[1]};
                        w[m].multiply(c, h, b);
#pragma unroll
                        for (u32 k = 0; k < 4; k++) {
                            const Record& record = k % 2 ? right : left;
                            f32& s = sum[m][n][k];
                            s = fma(as_f32(c[k]) - MAGIC_FLOAT, w[m].scale[h][k / 2] * record.d, s);
                            if (F::HAS_MIN) s = fma(w[m].min[h][k / 2], d_sum_of<F>(record, h), s);
                        }
                    }
                }
            }
        }
    }
#pragma unroll
    for (u32 m = 0; m < M; m++) {
#pragma unroll
        for (u32 n = 0; n < N; n++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                const u32 row = (first_panel + m) * 16 + g + 8 * (k / 2);
                const u32 token = first_token + column + 8 * n + 2 * t + k % 2;
                if (row < rows && token < tokens) {
                    out[u64(token) * rows + row] = bias ? sum[m][n][k] + bias[row] : sum[m][n][k];
                }
            }
        }
    }
}

#define KERNELS(Format, name)                                                                                          \
    KERNEL(288, matmul_one_##name)                                                                                     \
    (const u8* w, u32 rows, u32 cols, const u8* codes, const Record* records, u32, const f32* bias, f32* out) {       \
        one<Format>(w, rows, cols, codes, records, bias, out);                                                         \
    }                                                                                                                  \
    KERNEL(256, matmul_8_##name)                                                                                       \
    (const u8* w, u32 rows, u32 cols, const u8* codes, const Record* records, u32 tokens, const f32* bias, f32* out) { \
        tile<Format, 1, 1, 1>(w, rows, cols, codes, records, tokens, bias, out);                                       \
    }                                                                                                                  \
    KERNEL(256, matmul_32_##name)                                                                                      \
    (const u8* w, u32 rows, u32 cols, const u8* codes, const Record* records, u32 tokens, const f32* bias, f32* out) { \
        tile<Format, 1, 4, 1>(w, rows, cols, codes, records, tokens, bias, out);                                       \
    }                                                                                                                  \
    KERNEL(256, matmul_128_##name)                                                                                     \
    (const u8* w, u32 rows, u32 cols, const u8* codes, const Record* records, u32 tokens, const f32* bias, f32* out) { \
        tile<Format, 2, 8, 2>(w, rows, cols, codes, records, tokens, bias, out);                                       \
    }

KERNELS(Q8_0, q8_0)
KERNELS(Q4_0, q4_0)
KERNELS(Q4_1, q4_1)
KERNELS(Q5_0, q5_0)
KERNELS(Q5_1, q5_1)
KERNELS(Q2K, q2_k)
KERNELS(Q3K, q3_k)
KERNELS(Q4K, q4_k)
KERNELS(Q5K, q5_k)
KERNELS(Q6K, q6_k)
KERNELS(Iq4Nl, iq4_nl)
