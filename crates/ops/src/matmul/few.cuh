// One token, or up to eight: a block of threads per panel of sixteen outputs, limited by how fast weights are read.
//
// A stage is some units of the panel, with their activations, in shared memory; two or three stages are on their way there
// while one is multiplied. Eight warps take its units in turn and leave for each group f32(n) and scale * d (and min and
// d * sum) in one of two rings. A ninth warp adds up what is in the other ring, from the stage before, in order. So an output
// has one accumulator, whose chain of fused multiply-adds (4 cycles each) runs beside the reading, which takes several times
// as long for each group.
#pragma once

#include "output.cuh"
#include "unit.cuh"

namespace matmul {

constexpr u32 PRODUCERS = 8;

// What one lane knows of one group: N = 1 token (column 0 of the product, rows 2g and 2g + 1) or 8 (columns 2t, 2t + 1).
template <u32 N> constexpr u32 COLUMNS = N == 1 ? 1 : 2;
template <u32 N, bool HAS_MIN> struct alignas(16) Terms {
    f32 n[2 * COLUMNS<N>], scale[2 * COLUMNS<N>];
};
template <u32 N> struct alignas(16) Terms<N, true> {
    f32 n[2 * COLUMNS<N>], scale[2 * COLUMNS<N>], min[2], d_sum[COLUMNS<N>];
};

template <class F, u32 N> struct Few {
    static constexpr u32 UNITS = N == 1 ? 32 : 8, STAGES = N == 1 ? 3 : 4;
    static constexpr u32 WEIGHTS = UNITS / UNITS_PER_BLOCK<F> * PANEL_BLOCK<F>;
    static constexpr u32 STAGE = WEIGHTS + UNITS * N * 48;
    // One token needs one lane of four.
    static constexpr u32 LANES = N == 1 ? 8 : 32;
    static constexpr u32 COLUMNS = matmul::COLUMNS<N>;
    using Terms = matmul::Terms<N, F::HAS_MIN>;

    u8* stages;
    Terms* rings;
    u32 warp, lane, units;

    DEVICE Terms& terms_of(u32 stage, u32 group, u32 slot) const {
        return rings[(stage % 2 * UNITS * GROUPS<F> + group) * LANES + slot];
    }

    DEVICE u32 units_of(u32 stage) const { return min(UNITS, units - stage * UNITS); }

    // Producers copy weights, the ninth warp activations.
    DEVICE void fetch(const u8* panel, const u8* x, u32 stage) const {
        u8* to = stages + stage % STAGES * STAGE;
        const u32 first = stage * UNITS, count = units_of(stage);
        if (warp < PRODUCERS) {
            const u8* from = panel + u64(first / UNITS_PER_BLOCK<F>) * PANEL_BLOCK<F>;
            const u32 bytes = count / UNITS_PER_BLOCK<F> * PANEL_BLOCK<F>;
#pragma unroll
            for (u32 i = 0; i < WEIGHTS; i += 16 * 32 * PRODUCERS) {
                const u32 at = i + 16 * threadIdx.x;
                if (at < bytes) copy_async16(to + at, from + at);
            }
        } else {
            const u8* codes = x + u64(first) * (32 * N);
            const u8* sums = x + u64(units) * (32 * N) + u64(first) * (16 * N);
            for (u32 at = 16 * lane; at < count * 32 * N; at += 16 * 32) copy_async16(to + WEIGHTS + at, codes + at);
            u8* sums_to = to + WEIGHTS + UNITS * 32 * N;
            for (u32 at = 16 * lane; at < count * 16 * N; at += 16 * 32) copy_async16(sums_to + at, sums + at);
        }
    }

    // What a lane needs of a unit; the loads of several are under way before the first product.
    struct Operands {
        typename F::Raw raw;
        u32x2 b;
        Columns<F> columns;
    };

    DEVICE Operands operands(u32 stage, u32 unit) const {
        const u32 g = lane / 4, t = lane % 4;
        const u8* from = stages + stage % STAGES * STAGE;
        const u8* codes = from + WEIGHTS + unit * 32 * N;
        const u8* sums = from + WEIGHTS + UNITS * 32 * N + unit * 16 * N;
        // A single token is in every column of the product, since all but the first are ignored.
        return {read<F>(from, unit, g, t), *reinterpret_cast<const u32x2*>(codes + (N == 1 ? 0 : 32 * g) + 8 * t),
            N == 1 ? Columns<F>::read(sums) : Columns<F>::read(sums + 8 * t, N)};
    }

    DEVICE void produce(u32 stage, u32 unit, const Operands& of) const {
        const u32 g = lane / 4, t = lane % 4, in_block = unit % UNITS_PER_BLOCK<F>;
        u32 a[4];
        F::codes(of.raw, in_block, t, a);
        const quant::Scales<GROUPS<F>> scales = F::scales(of.raw, in_block);
#pragma unroll
        for (u32 h = 0; h < GROUPS<F>; h++) {
            const auto& begin = of.columns.begin[h];
            i32 c[4] = {begin[0], begin[1], begin[0], begin[1]};
            multiply<F>(c, h, a, of.b);
            Terms terms;
#pragma unroll
            for (u32 row = 0; row < 2; row++) {
#pragma unroll
                for (u32 i = 0; i < COLUMNS; i++) {
                    terms.n[row * COLUMNS + i] = number_of(c[2 * row + i]);
                    terms.scale[row * COLUMNS + i] = scales.scale[h][row] * of.columns.d[i];
                    if constexpr (F::HAS_MIN) terms.d_sum[i] = of.columns.d_sum[h][i];
                }
                if constexpr (F::HAS_MIN) terms.min[row] = scales.min[h][row];
            }
            const u32 group = unit * GROUPS<F> + h;
            if (N > 1 || t == 0) terms_of(stage, group, N == 1 ? g : lane) = terms;
        }
    }

    DEVICE void produce_all(u32 stage) const {
        const u32 count = units_of(stage);
        if (count == UNITS) {
            constexpr u32 TOGETHER = UNITS / PRODUCERS < 2 ? 1 : 2; // More do not fit in the registers.
#pragma unroll
            for (u32 first = warp; first < UNITS; first += TOGETHER * PRODUCERS) {
                Operands of[TOGETHER];
#pragma unroll
                for (u32 i = 0; i < TOGETHER; i++) of[i] = operands(stage, first + i * PRODUCERS);
#pragma unroll
                for (u32 i = 0; i < TOGETHER; i++) produce(stage, first + i * PRODUCERS, of[i]);
            }
        } else {
            for (u32 unit = warp; unit < count; unit += PRODUCERS) produce(stage, unit, operands(stage, unit));
        }
    }

    DEVICE void add_up(u32 stage, f32 (&s)[2 * COLUMNS]) const {
        const u32 groups = units_of(stage) * GROUPS<F>;
#pragma unroll 8
        for (u32 group = 0; group < groups; group++) {
            const Terms terms = terms_of(stage, group, lane % LANES);
#pragma unroll
            for (u32 i = 0; i < 2 * COLUMNS; i++) {
                s[i] = fma(terms.n[i], terms.scale[i], s[i]);
                if constexpr (F::HAS_MIN) s[i] = fma(terms.min[i / COLUMNS], terms.d_sum[i % COLUMNS], s[i]);
            }
        }
    }
};

template <class F, u32 N> DEVICE void few(const u8* weights, const u8* x, u32 units, const Output& out) {
    using Few = Few<F, N>;
    DYNAMIC_SHARED(u8, shared);
    const Few few{shared, reinterpret_cast<typename Few::Terms*>(shared + Few::STAGES * Few::STAGE), threadIdx.x / 32,
        threadIdx.x % 32, units};
    const u8* panel = weights + u64(blockIdx.x) * (units / UNITS_PER_BLOCK<F>) * PANEL_BLOCK<F>;
    const u32 stages = (units + Few::UNITS - 1) / Few::UNITS;
    for (u32 stage = 0; stage < Few::STAGES - 1; stage++) {
        if (stage < stages) few.fetch(panel, x, stage);
        copy_async_commit();
    }
    f32 s[2 * Few::COLUMNS] = {};
    for (u32 stage = 0; stage <= stages; stage++) {
        copy_async_wait<Few::STAGES - 2>();
        sync_block(); // This stage is there, the one before is multiplied, the one before that added up.
        if (stage + Few::STAGES - 1 < stages) few.fetch(panel, x, stage + Few::STAGES - 1);
        copy_async_commit();
        if (few.warp == PRODUCERS) {
            if (stage > 0) few.add_up(stage - 1, s);
        } else if (stage < stages) {
            few.produce_all(stage);
        }
    }
    if (few.warp < PRODUCERS || few.lane >= Few::LANES) return;
    const u32 g = N == 1 ? few.lane : few.lane / 4, t = N == 1 ? 0 : few.lane % 4;
#pragma unroll
    for (u32 i = 0; i < 2 * Few::COLUMNS; i++) {
        write(out, 2 * t + i % Few::COLUMNS, 16 * blockIdx.x + 2 * g + i / Few::COLUMNS, s[i]);
    }
}

} // namespace matmul
