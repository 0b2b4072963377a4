// Attention of many tokens: a block takes a tile of queries (token, head) of one key/value head through the pages in order,
// combining each as soon as it has it; mod.rs has the formulas.
//
// Scores and weighted values are two products (rows, k) · (k, 64 columns) with k at most 64 at a time: for scores k is 64 elements
// of D and columns are the positions of a page; for values k are these positions and columns 64 of D. Either way the right
// factor is four strips of a page, *parts* of which go through shared memory one after the other, widened to f32; the next one is
// held in registers while this one is multiplied. The left factor, queries or weights, is in shared memory.
// A thread owns R rows by 4 columns of a product, and the same of each 64 columns of the output, so that it loads three
// vectors for 32 fused multiply-adds. All sums run in one register in the order of k.

#include "cache.cuh"
#include "device.cuh"
#include "math.cuh"

constexpr u32 THREADS = 128;
constexpr u32 PART = 64;
// Floats from one strip of a part to the next: half the banks further, since a warp reads two strips at once.
constexpr u32 STRIP = PART * 16 + 16;
// Floats from one row of weights to the next. As for queries, rows begin four banks apart.
constexpr u32 WEIGHTS = PAGE + 4;

// Rows 0 .. `rows` of `strips` strips of sixteen, `stride` elements apart, and one of `narrow` columns and 64 rows if any.
template <class E> struct Part {
    const E* from;
    u32 stride, rows, strips, narrow;
};

// Elements 64c .. of the keys of all positions.
template <class E> DEVICE Part<E> part_of_keys(const E* keys, u32 c, u32 dim) {
    return {keys + c * PART * 16, dim * 16, min(PART, dim - c * PART), 4, 0};
}

// Columns 64c .. of the values of all positions.
template <class E> DEVICE Part<E> part_of_values(const E* values, u32 c, u32 dim) {
    const u32 columns = min(PART, dim - c * PART);
    return {values + c * PART * PAGE, PAGE * 16, PAGE, columns / 16, columns % 16};
}

// A part on its way from memory to shared memory.
template <class E> struct Held {
    static constexpr u32 EACH = 16 / sizeof(E);                       // Elements of a vector.
    static constexpr u32 PER_STRIP = PART * 16 / EACH / THREADS;      // Vectors of a thread.
    u32x4 vectors[4 * PER_STRIP];

    DEVICE void fetch(const Part<E>& part) {
        for (u32 i = 0; i < 4 * PER_STRIP; i++) {
            const u32 strip = i / PER_STRIP, at = (i % PER_STRIP * THREADS + threadIdx.x) * EACH;
            const E* from = part.from + u64(strip) * part.stride + at;
            if (strip < part.strips && at < part.rows * 16) vectors[i] = load_once(reinterpret_cast<const u32x4*>(from));
        }
    }

    DEVICE void put(const Part<E>& part, f32* shared) const {
        for (u32 i = 0; i < 4 * PER_STRIP; i++) {
            const u32 strip = i / PER_STRIP, at = (i % PER_STRIP * THREADS + threadIdx.x) * EACH;
            if (strip < part.strips && at < part.rows * 16) spread(vectors[i], shared + strip * STRIP + at);
        }
        const E* narrow = part.from + u64(part.strips) * part.stride;
        for (u32 i = threadIdx.x; i < part.narrow * PART; i += THREADS) {
            shared[part.strips * STRIP + i / part.narrow * 16 + i % part.narrow] = widen(narrow[i]);
        }
    }

    DEVICE static void spread(const u32x4& v, f32* to) {
        f32x4* four = reinterpret_cast<f32x4*>(to);
        if constexpr (sizeof(E) == 4) {
            *four = f32x4{as_f32(v.x), as_f32(v.y), as_f32(v.z), as_f32(v.w)};
        } else {
            four[0] = f32x4{widen(u16(v.x)), widen(u16(v.x >> 16)), widen(u16(v.y)), widen(u16(v.y >> 16))};
            four[1] = f32x4{widen(u16(v.z)), widen(u16(v.z >> 16)), widen(u16(v.w)), widen(u16(v.w >> 16))};
        }
    }
};

DEVICE void add_product(f32 (&sum)[4], f32 a, const f32x4& b) {
    sum[0] = fma(a, b.x, sum[0]);
    sum[1] = fma(a, b.y, sum[1]);
    sum[2] = fma(a, b.z, sum[2]);
    sum[3] = fma(a, b.w, sum[3]);
}

// sum[j] += a[8j, k] · b[k], k increasing below `count`; rows of a are `pitch` apart.
template <u32 R> DEVICE void multiply(f32 (&sum)[R][4], const f32* a, u32 pitch, const f32* b, u32 count) {
    u32 k = 0;
#pragma unroll 1
    for (; k + 4 <= count; k += 4) {
        const f32x4* four = reinterpret_cast<const f32x4*>(b + k * 16);
        const f32x4 b0 = four[0], b1 = four[4], b2 = four[8], b3 = four[12];
#pragma unroll
        for (u32 j = 0; j < R; j++) {
            const f32x4 weights = *reinterpret_cast<const f32x4*>(a + j * 8 * pitch + k);
            add_product(sum[j], weights.x, b0);
            add_product(sum[j], weights.y, b1);
            add_product(sum[j], weights.z, b2);
            add_product(sum[j], weights.w, b3);
        }
    }
#pragma unroll 1
    for (; k < count; k++) {
        const f32x4 row = *reinterpret_cast<const f32x4*>(b + k * 16);
        for (u32 j = 0; j < R; j++) add_product(sum[j], a[j * 8 * pitch + k], row);
    }
}

// The same for k below n[j], which differ.
template <u32 R> DEVICE void multiply_seen(f32 (&sum)[R][4], const f32* a, u32 pitch, const f32* b, const u32 (&n)[R]) {
    u32 most = 0;
    for (u32 j = 0; j < R; j++) most = max(most, n[j]);
#pragma unroll 1
    for (u32 k = 0; k < most; k++) {
        const f32x4 row = *reinterpret_cast<const f32x4*>(b + k * 16);
        for (u32 j = 0; j < R; j++) {
            if (k < n[j]) add_product(sum[j], a[j * 8 * pitch + k], row);
        }
    }
}

// What is known of the rows of a tile.
template <u32 ROWS> struct State {
    u32 seen[ROWS];            // Positions, from the first one of the cache.
    f32 m[ROWS], z[ROWS];      // Of the pages combined so far.
    f32 m_page[ROWS], z_page[ROWS];
    f32 c[ROWS], e[ROWS];

    // Positions of page b that a row sees.
    DEVICE u32 n(u32 row, u32 b) const { return seen[row] > b * PAGE ? min(PAGE, seen[row] - b * PAGE) : 0; }

    // Products of queries and keys to weights; sixteen threads to a row.
    DEVICE void soften(f32* p, f32 scale, u32 b) {
        const u32 lane = threadIdx.x % 16;
#pragma unroll 1
        for (u32 row = threadIdx.x / 16; row < ROWS; row += THREADS / 16) {
            const u32 count = n(row, b);
            f32 s[4], largest = minus_infinity(), sum = 0;
            for (u32 i = 0; i < 4; i++) {
                const u32 at = i * 16 + lane;
                s[i] = at < count ? p[row * WEIGHTS + at] * scale : minus_infinity();
                largest = larger(s[i], largest);
            }
            for (u32 step = 8; step; step /= 2) largest = larger(shuffle_xor(largest, step), largest);
            for (u32 i = 0; i < 4; i++) {
                s[i] = math::exp(s[i] - largest);
                p[row * WEIGHTS + i * 16 + lane] = s[i];
                sum += s[i];
            }
            sum = fold_lanes(sum);
            if (lane == 0) m_page[row] = largest, z_page[row] = sum;
        }
    }

    // Combines maximum and sum of page b; a thread to a row.
    DEVICE void combine(u32 b) {
        const u32 row = threadIdx.x;
        if (row >= ROWS || n(row, b) == 0) return;
        const f32 now = larger(m_page[row], m[row]);
        c[row] = math::exp(m[row] - now), e[row] = math::exp(m_page[row] - now);
        m[row] = now;
        z[row] = fma(z[row], c[row], z_page[row] * e[row]);
    }
};

// D at most 64 · CHUNKS; tiles of 8R rows. Blocks (tile, key/value head, sequence).
template <class E, u32 R, u32 CHUNKS> struct Tile {
    static constexpr u32 ROWS = 8 * R, PITCH = CHUNKS * PART + 4;

    // Dynamic shared memory, as cuda.rs counts it.
    struct Shared {
        f32 q[ROWS * PITCH], p[ROWS * WEIGHTS], part[4 * STRIP];
        State<ROWS> state;
    };

    DEVICE static void run(const CachedSequence& sequence, const f32* q, u32 stride, u32 per_kv_head, u32 dim, f32 scale, f32* out) {
        DYNAMIC_SHARED(Shared, shared);
        // Long tiles begin first.
        const u32 first_row = (gridDim.x - 1 - blockIdx.x) * ROWS, rows = sequence.count * per_kv_head;
        if (first_row >= rows) return;
        const u32 kv_heads = gridDim.y, kv_head = blockIdx.y;
        const u64 width = u64(kv_heads) * per_kv_head * dim;
        // Four rows and eight times four columns to a warp; rows are j · 8 apart.
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const u32 row = warp / 2 * 4 + lane / 8, column = (warp % 2 * 8 + lane % 8) * 4;
        const f32 *left_q = shared->q + row * PITCH, *left_p = shared->p + row * WEIGHTS;
        const f32* right = shared->part + column / 16 * STRIP + column % 16;

        // There may be fewer rows: then the last one is there several times.
        for (u32 i = threadIdx.x; i < ROWS * dim; i += THREADS) {
            const u32 r = min(first_row + i / dim, rows - 1), head = kv_head * per_kv_head + r % per_kv_head;
            shared->q[i / dim * PITCH + i % dim] = q[u64(sequence.first + r / per_kv_head) * stride + head * dim + i % dim];
        }
        State<ROWS>& state = shared->state;
        for (u32 i = threadIdx.x; i < ROWS; i += THREADS) {
            state.seen[i] = sequence.seen_by(min(first_row + i, rows - 1) / per_kv_head);
            state.m[i] = minus_infinity(), state.z[i] = 0;
        }
        const u32 num_pages = pages_of(sequence.seen_by(min(first_row + ROWS - 1, rows - 1) / per_kv_head));
        const u32 whole = sequence.seen_by(first_row / per_kv_head) / PAGE; // Pages that all rows see to the end.

        f32 o[CHUNKS][R][4] = {};
        const u64* pages = sequence.cache->pages();
        const E *keys = keys_of<E>(pages[0], kv_head, dim), *values;
        Held<E> held;
        Part<E> next = part_of_keys(keys, 0, dim);
        held.fetch(next);
        held.put(next, shared->part);
        sync_block();
#pragma unroll 1
        for (u32 b = 0; b < num_pages; b++) {
            values = values_of<E>(pages[b], kv_heads, kv_head, dim);
            f32 s[R][4] = {};
#pragma unroll 1
            for (u32 c = 0; c * PART < dim; c++) {
                const bool is_last = (c + 1) * PART >= dim;
                next = is_last ? part_of_values(values, 0, dim) : part_of_keys(keys, c + 1, dim);
                held.fetch(next);
                multiply(s, left_q + c * PART, PITCH, right, min(PART, dim - c * PART));
                if (is_last) {
                    for (u32 j = 0; j < R; j++) {
                        f32x4* to = reinterpret_cast<f32x4*>(shared->p + (row + 8 * j) * WEIGHTS + column);
                        *to = f32x4{s[j][0], s[j][1], s[j][2], s[j][3]};
                    }
                    sync_block();
                    state.soften(shared->p, scale, b);
                }
                sync_block();
                held.put(next, shared->part);
                if (is_last) state.combine(b);
                sync_block();
            }
            if (b + 1 < num_pages) keys = keys_of<E>(pages[b + 1], kv_head, dim);
#pragma unroll
            for (u32 c = 0; c < CHUNKS; c++) {
                if (c * PART >= dim) continue;
                next = (c + 1) * PART >= dim ? part_of_keys(keys, 0, dim) : part_of_values(values, c + 1, dim);
                held.fetch(next); // At the very end, once more what is there.
                f32 sum[R][4] = {};
                if (b < whole) {
                    multiply(sum, left_p, WEIGHTS, right, PAGE);
                } else {
                    u32 n[R];
                    for (u32 j = 0; j < R; j++) n[j] = state.n(row + 8 * j, b);
                    multiply_seen(sum, left_p, WEIGHTS, right, n);
                }
#pragma unroll
                for (u32 j = 0; j < R; j++) {
                    const u32 r = row + 8 * j;
                    if (state.seen[r] <= b * PAGE) continue;
                    const f32 factor = state.c[r], e = state.e[r];
                    for (u32 x = 0; x < 4; x++) o[c][j][x] = fma(o[c][j][x], factor, sum[j][x] * e);
                }
                sync_block();
                held.put(next, shared->part);
                sync_block();
            }
        }
#pragma unroll
        for (u32 j = 0; j < R; j++) {
            const u32 r = first_row + row + 8 * j, head = kv_head * per_kv_head + r % per_kv_head;
            if (r >= rows) continue;
            f32* to = out + u64(sequence.first + r / per_kv_head) * width + u64(head) * dim;
            const f32 z = state.z[row + 8 * j];
            for (u32 c = 0; c < CHUNKS; c++) {
                for (u32 x = 0; x < 4; x++) {
                    const u32 d = c * PART + column + x;
                    if (d < dim) to[d] = o[c][j][x] / z;
                }
            }
        }
    }
};

#define TILES(dim_max, type, E, R)                                                                                     \
    KERNEL(128, attention_tiles_##dim_max##_##type)                                                                    \
    (CachedSequences sequences, const f32* q, u32 stride, u32 per_kv_head, u32 dim, f32 scale, f32* out) {                   \
        Tile<E, R, dim_max / 64>::run(sequences.at[blockIdx.z], q, stride, per_kv_head, dim, scale, out);              \
    }
TILES(64, f32, f32, 8)
TILES(128, f32, f32, 8)
TILES(256, f32, f32, 4)
TILES(64, f16, u16, 8)
TILES(128, f16, u16, 8)
TILES(256, f16, u16, 4)
