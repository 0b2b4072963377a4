// The recurrence, token by token, with the state in registers from the first token to the last.
//
// A row of the state, (n), is held by the 16 lanes of half a warp, lane i having the elements i, i + 16, ..., so a lane's
// sum is the contract's. A half-warp carries R rows of one head: each element of B and C that it loads from shared memory
// serves R rows, three instructions each, so that loads are hidden behind arithmetic and R sums run side by side.
//
// A block of four warps, one per scheduler, carries 8 * R rows of a group, whatever heads they belong to: the heads share
// B and C. (The 4B has 8 groups of 960 rows: 120 blocks.) Tiles of tokens of B, C and x are copied to shared memory while
// the tile before is worked on; delta and exp(delta * A) are computed by a thread per token and head.

#include "mamba.cuh"

// B, C: (l, g * n), x: (l, h * p), dt: (l, h).
struct Input {
    const f32 *x, *dt, *B, *C;
    u32 x_stride, dt_stride, B_stride, C_stride;
};

// R rows per half-warp, of which a block has HALVES; a tile of TOKENS; 16 sums, of PASS tokens, are folded at a time.
template <u32 N> struct Plan {
    static constexpr u32 HALVES = 8, R = N > 128 ? 4 : 8, TOKENS = N > 128 ? 8 : 16, ROWS = HALVES * R, PASS = 16 / R;
};

template <u32 N> struct Tiles {
    using P = Plan<N>;
    f32 B[2][P::TOKENS][N], C[2][P::TOKENS][N], x[2][P::TOKENS][P::ROWS];
    // Of the heads of the block: a head has R rows or a multiple.
    f32x2 step[P::TOKENS][P::HALVES];
};

// Folds 16 laned sums at once: lane i returns the sum of v[i]. Each step hands half of what is left to the lane it is
// to be added to, so there are 15 exchanges instead of 64. The tree is the contract's: addition commutes.
template <u32 WIDTH = 8> DEVICE f32 fold_16(f32 (&v)[16], u32 lane) {
    const bool upper = lane & WIDTH;
#pragma unroll
    for (u32 i = 0; i < WIDTH; i++) {
        const f32 given = upper ? v[i] : v[i + WIDTH], kept = upper ? v[i + WIDTH] : v[i];
        v[i] = kept + shuffle_xor(given, WIDTH);
    }
    if constexpr (WIDTH > 1) return fold_16<WIDTH / 2>(v, lane);
    return v[0];
}

// Starts the copies of `count` tokens from row `row` on to the tiles `at`; x from column `channel` on.
template <u32 N>
DEVICE void stage(Tiles<N>& tiles, u32 at, const Input& input, u32 row, u32 count, u32 group, u32 channel, u32 rows) {
    const f32* B = input.B + u64(row) * input.B_stride + group * N;
    const f32* C = input.C + u64(row) * input.C_stride + group * N;
    const f32* x = input.x + u64(row) * input.x_stride + channel;
    for (u32 i = threadIdx.x; i < count * (N / 4); i += blockDim.x) {
        const u32 t = i / (N / 4), column = i % (N / 4) * 4;
        copy_async16(&tiles.B[at][t][column], B + u64(t) * input.B_stride + column);
        copy_async16(&tiles.C[at][t][column], C + u64(t) * input.C_stride + column);
    }
    constexpr u32 ROWS = Plan<N>::ROWS;
    for (u32 i = threadIdx.x; i < count * (ROWS / 4); i += blockDim.x) {
        const u32 t = i / (ROWS / 4), column = i % (ROWS / 4) * 4;
        if (column < rows) copy_async16(&tiles.x[at][t][column], x + u64(t) * input.x_stride + column);
    }
    copy_async_commit();
}

// Carries the rows `s` of a half-warp through a token; `sums` are the lane's shares of the products with C.
template <u32 N, u32 R = Plan<N>::R>
DEVICE void advance(f32 (&s)[R][N / 16], f32x2 step, const f32* x, const f32* B, const f32* C, f32* sums) {
    f32 u[R];
#pragma unroll
    for (u32 r = 0; r < R; r++) {
        u[r] = step.x * x[r];
        sums[r] = 0;
    }
#pragma unroll
    for (u32 m = 0; m < N / 16; m++) {
        const f32 b = B[16 * m], c = C[16 * m];
#pragma unroll
        for (u32 r = 0; r < R; r++) {
            s[r][m] = fma(u[r], b, step.y * s[r][m]);
            sums[r] = fma(c, s[r][m], sums[r]);
        }
    }
}

// One block: the rows from `slice` * ROWS on of a group of `group_rows`, of one sequence.
template <u32 N>
DEVICE void scan(const Sequence& sequence, const Ssd& ssd, const Input& input, f32* y, u32 y_stride, u32 p,
                 u32 group_rows, Tiles<N>& tiles) {
    using P = Plan<N>;
    const u32 slices = (group_rows + P::ROWS - 1) / P::ROWS;
    const u32 group = blockIdx.x / slices, first = blockIdx.x % slices * P::ROWS;
    const u32 rows = group_rows - first < P::ROWS ? group_rows - first : P::ROWS;
    const u32 first_head = first / p, heads = (first + rows - 1) / p - first_head + 1;
    const u32 lane = threadIdx.x % 16, half = threadIdx.x / 16;
    // A half-warp without rows does what the first one does and stores nothing, since exchanges need all lanes.
    const bool has_rows = half * P::R < rows;
    const u32 row = has_rows ? half * P::R : 0, channel = group * group_rows + first;
    const u32 head = (first + row) / p - first_head, group_heads = group_rows / p;
    const f32 skip = ssd.D[group * group_heads + first_head + head];

    f32* state = sequence.ssm + u64(channel + row) * N + lane;
    f32 s[P::R][N / 16];
#pragma unroll
    for (u32 r = 0; r < P::R; r++) {
#pragma unroll
        for (u32 m = 0; m < N / 16; m++) s[r][m] = has_rows ? state[r * N + 16 * m] : 0;
    }

    // The thread's token and head of a tile, whose dt is loaded a tile ahead.
    const u32 my_t = threadIdx.x / heads, my_head = threadIdx.x % heads;
    const u32 dt_column = group * group_heads + first_head + my_head;
    const auto load_dt = [&](u32 t) {
        const bool is_mine = my_t < P::TOKENS && t + my_t < sequence.count;
        return is_mine ? input.dt[u64(sequence.first + t + my_t) * input.dt_stride + dt_column] : 0;
    };
    const auto count_at = [&](u32 t) { return sequence.count - t < P::TOKENS ? sequence.count - t : P::TOKENS; };

    stage(tiles, 0, input, sequence.first, count_at(0), group, channel, rows);
    f32 dt = load_dt(0);
    for (u32 begin = 0, at = 0; begin < sequence.count; begin += P::TOKENS, at ^= 1) {
        const u32 count = count_at(begin), next = begin + P::TOKENS;
        copy_async_wait<0>();
        sync_block(); // This tile is there, and the one before is done with.
        if (my_t < count) tiles.step[my_t][my_head] = discretise(ssd, dt_column, dt);
        if (next < sequence.count) {
            stage(tiles, at ^ 1, input, sequence.first + next, count_at(next), group, channel, rows);
            dt = load_dt(next);
        }
        sync_block();
        for (u32 t = 0; t < count; t += P::PASS) {
            f32 sums[16] = {};
#pragma unroll
            for (u32 k = 0; k < P::PASS; k++) {
                if (t + k < count) {
                    advance<N>(s, tiles.step[t + k][head], &tiles.x[at][t + k][row], &tiles.B[at][t + k][lane],
                               &tiles.C[at][t + k][lane], sums + k * P::R);
                }
            }
            const f32 sum = fold_16(sums, lane);
            const u32 token = t + lane / P::R, r = row + lane % P::R;
            if (has_rows && token < count) {
                y[u64(sequence.first + begin + token) * y_stride + channel + r] = fma(skip, tiles.x[at][token][r], sum);
            }
        }
    }
    if (has_rows) {
#pragma unroll
        for (u32 r = 0; r < P::R; r++) {
#pragma unroll
            for (u32 m = 0; m < N / 16; m++) state[r * N + 16 * m] = s[r][m];
        }
    }
}

// For widths of heads that are multiples of R, and B, C and x aligned to 16 bytes.
#define SSD(N)                                                                                                         \
    KERNEL(128, ssd_##N)                                                                                               \
    (Sequences sequences, Ssd ssd, Input input, f32* y, u32 y_stride, u32 p, u32 group_rows) {                         \
        SHARED Tiles<N> tiles;                                                                                         \
        const Sequence sequence = sequences.at[blockIdx.y];                                                            \
        if (sequence.count > 0) scan<N>(sequence, ssd, input, y, y_stride, p, group_rows, tiles);                      \
    }
SSD(64)
SSD(128)
SSD(256)

// Any shape: a row per half-warp, its state in memory, each element of it one thread's.
KERNEL(128, ssd_any)
(Sequences sequences, Ssd ssd, Input input, f32* y, u32 y_stride, u32 p, u32 group_rows, u32 n, u32 rows) {
    const Sequence sequence = sequences.at[blockIdx.y];
    const u32 lane = threadIdx.x % 16, row = blockIdx.x * (blockDim.x / 16) + threadIdx.x / 16;
    const bool has_row = row < rows;
    const u32 head = has_row ? row / p : 0, column = has_row ? row / group_rows * n : 0;
    f32* state = sequence.ssm + u64(has_row ? row : 0) * n;
    for (u32 t = sequence.first; t < sequence.first + sequence.count; t++) {
        const f32x2 step = discretise(ssd, head, input.dt[u64(t) * input.dt_stride + head]);
        const f32 x = input.x[u64(t) * input.x_stride + (has_row ? row : 0)], u = step.x * x;
        const f32* B = input.B + u64(t) * input.B_stride + column;
        const f32* C = input.C + u64(t) * input.C_stride + column;
        f32 sum = 0;
        for (u32 i = lane; has_row && i < n; i += 16) {
            const f32 s = fma(u, B[i], step.y * state[i]);
            state[i] = s;
            sum = fma(C[i], s, sum);
        }
        sum = fold_lanes(sum);
        if (has_row && lane == 0) y[u64(t) * y_stride + row] = fma(ssd.D[head], x, sum);
    }
}
