// Many tokens: a block of threads per tile of outputs, each warp with its own of them in registers, through all of k in order.
//
// Activations are staged in shared memory, which all warps read. Weights are not: a warp is the only one, or one of two, to
// use those of its rows, so it reads them one unit ahead into registers, and unpacks them once for all its tokens.
#pragma once

#include "output.cuh"
#include "unit.cuh"

namespace matmul {

// Warps `ABOVE` one another and `BESIDE` one another, each `PANELS` times sixteen rows high and `EIGHTS` times eight tokens wide.
template <class F, u32 PANELS, u32 EIGHTS, u32 ABOVE, u32 BESIDE> struct Tile {
    static constexpr u32 THREADS = 32 * ABOVE * BESIDE, ROWS = 16 * PANELS * ABOVE, TOKENS = 8 * EIGHTS * BESIDE;
    static constexpr u32 UNITS = 2, STAGES = 3; // Units per stage.

    struct alignas(16) Stage {
        u8 codes[UNITS][32 * TOKENS], sums[UNITS][16 * TOKENS];
    };

    // Tokens of the tile from `token` on, of `padded`.
    DEVICE static void fetch(Stage& to, const u8* x, u32 padded, u32 token, u32 units, u32 first) {
        const u8* codes = x + 32 * u64(token);
        const u8* sums = x + u64(units) * padded * 32 + 4 * token;
#pragma unroll
        for (u32 unit = 0; unit < UNITS; unit++) {
            if (first + unit >= units) break;
            const u64 before = u64(first + unit) * padded;
#pragma unroll
            for (u32 i = 0; i < 32 * TOKENS; i += 16 * THREADS) {
                const u32 at = i + 16 * threadIdx.x;
                copy_async16(to.codes[unit] + at, codes + before * 32 + at);
            }
            // Four rows of a word per token.
            for (u32 at = 16 * threadIdx.x; at < 16 * TOKENS; at += 16 * THREADS) {
                const u32 row = at / (4 * TOKENS), in_row = at % (4 * TOKENS);
                copy_async16(to.sums[unit] + at, sums + before * 16 + row * 4 * padded + in_row);
            }
        }
    }

    // Adds the products of one unit of the warp's panels with its tokens.
    DEVICE static void add(f32 (&s)[PANELS][EIGHTS][4], const typename F::Raw (&raw)[PANELS], u32 in_block, const u8* codes,
        const u8* sums) {
        const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        u32 a[PANELS][4];
        quant::Scales<GROUPS<F>> scales[PANELS];
#pragma unroll
        for (u32 panel = 0; panel < PANELS; panel++) {
            F::codes(raw[panel], in_block, t, a[panel]);
            scales[panel] = F::scales(raw[panel], in_block);
        }
#pragma unroll
        for (u32 n = 0; n < EIGHTS; n++) {
            const u32x2 b = *reinterpret_cast<const u32x2*>(codes + 256 * n + 32 * g + 8 * t);
            const Columns<F> columns = Columns<F>::read(sums + 32 * n + 8 * t, TOKENS);
#pragma unroll
            for (u32 h = 0; h < GROUPS<F>; h++) {
#pragma unroll
                for (u32 panel = 0; panel < PANELS; panel++) {
                    i32 c[4] = {columns.begin[h][0], columns.begin[h][1], columns.begin[h][0], columns.begin[h][1]};
                    multiply<F>(c, h, a[panel], b);
#pragma unroll
                    for (u32 i = 0; i < 4; i++) {
                        f32& sum = s[panel][n][i];
                        sum = fma(number_of(c[i]), scales[panel].scale[h][i / 2] * columns.d[i % 2], sum);
                        if constexpr (F::HAS_MIN) sum = fma(scales[panel].min[h][i / 2], columns.d_sum[h][i % 2], sum);
                    }
                }
            }
        }
    }

    DEVICE static void run(const u8* weights, const u8* x, u32 padded, u32 units, const Output& out) {
        SHARED Stage stages[STAGES];
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const u32 first_token = blockIdx.x * TOKENS, column = warp / ABOVE * (8 * EIGHTS), token = first_token + column;
        const u32 first_panel = blockIdx.y * (ROWS / 16) + warp % ABOVE * PANELS, panels = (out.rows + 15) / 16;
        const u32 steps = (units + UNITS - 1) / UNITS;

        const u8* panel[PANELS]; // One past the end is the last one again, and is not written.
        typename F::Raw next[PANELS];
#pragma unroll
        for (u32 i = 0; i < PANELS; i++) {
            panel[i] = weights + u64(min(first_panel + i, panels - 1)) * (units / UNITS_PER_BLOCK<F>) * PANEL_BLOCK<F>;
            next[i] = read<F>(panel[i], 0, g, t);
        }
        for (u32 step = 0; step < STAGES - 1; step++) {
            if (step < steps) fetch(stages[step], x, padded, first_token, units, step * UNITS);
            copy_async_commit();
        }
        f32 s[PANELS][EIGHTS][4] = {};
        for (u32 step = 0; step < steps; step++) {
            copy_async_wait<STAGES - 2>();
            sync_block(); // This stage is there, and nobody reads the one before, which is overwritten now.
            const u32 ahead = step + STAGES - 1;
            if (ahead < steps) fetch(stages[ahead % STAGES], x, padded, first_token, units, ahead * UNITS);
            copy_async_commit();
            const Stage& stage = stages[step % STAGES];
#pragma unroll 1
            for (u32 i = 0; i < UNITS; i++) {
                const u32 unit = step * UNITS + i;
                if (unit >= units || token >= out.tokens) break;
                typename F::Raw raw[PANELS];
#pragma unroll
                for (u32 p = 0; p < PANELS; p++) {
                    raw[p] = next[p];
                    next[p] = read<F>(panel[p], min(unit + 1, units - 1), g, t);
                }
                add(s, raw, unit % UNITS_PER_BLOCK<F>, stage.codes[i] + 32 * column, stage.sums[i] + 4 * column);
            }
        }
#pragma unroll
        for (u32 p = 0; p < PANELS; p++) {
#pragma unroll
            for (u32 n = 0; n < EIGHTS; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    write(out, token + 8 * n + 2 * t + i % 2, 16 * (first_panel + p) + 2 * g + i / 2, s[p][n][i]);
                }
            }
        }
    }
};

} // namespace matmul
