// Attention over pages of 64 positions: contract and order of arithmetic in mod.rs, layout of a page in page.rs (keys of all
// heads, then values of all heads). A cache has a header in memory: its length and the addresses of its pages, so that a step
// of decoding is launched with the same arguments whatever its position.
//
// Few tokens (`pages`, `combine`): a block per page leaves the page's maximum, sum and outputs in memory, and a block per
// query combines them in order. Many tokens (`tile`): a block keeps 64 queries of one key/value head and takes page after page
// through shared memory, combining as it goes.

#include "device.cuh"
#include "math.cuh"

constexpr u32 PAGE = 64;
#define NEGATIVE_INFINITY as_f32(0xff800000u)

struct Header {
    u64 length;
    u32 ticket, unused;
    u64 pages[1];
};
struct Sequence {
    Header* header;
    u32 first, count;  // Rows of the launch's matrices.
};
struct Sequences {
    Sequence at[16];
};
struct Shape {
    u32 heads, kv_heads, dim;
    f32 scale;
};

DEVICE f32 widen(f32 x) { return x; }
DEVICE f32 widen(u16 x) { return half_to_f32(x); }
DEVICE void narrow(f32 x, f32& to) { to = x; }
DEVICE void narrow(f32 x, u16& to) { to = math::round_to_f16(x); }
DEVICE f32 larger(f32 a, f32 b) { return a > b ? a : b; }

// Offsets in a page's keys, and in its values.
DEVICE u32 key_at(const Shape& shape, u32 kv_head, u32 slot, u32 d) {
    return kv_head * shape.dim * PAGE + (slot / 16 * shape.dim + d) * 16 + slot % 16;
}
DEVICE u32 value_at(const Shape& shape, u32 kv_head, u32 slot, u32 d) {
    const u32 first = d / 16 * 16;
    return (kv_head * shape.dim + first) * PAGE + slot * min(16u, shape.dim - first) + d % 16;
}
template <class E> DEVICE E* keys_of(u64 page) { return reinterpret_cast<E*>(page); }
template <class E> DEVICE E* values_of(u64 page, const Shape& shape) {
    return keys_of<E>(page) + shape.kv_heads * shape.dim * PAGE;
}

// ---- appending: a block per row ------------------------------------------------------------------------------------------

template <class E>
DEVICE void append(Header* header, const Shape& shape, const f32* k, u32 k_stride, const f32* v, u32 v_stride) {
    const u64 position = header->length + blockIdx.x;
    const u64 page = header->pages[position / PAGE];
    const u32 slot = position % PAGE;
    for (u32 i = threadIdx.x; i < shape.kv_heads * shape.dim; i += blockDim.x) {
        const u32 head = i / shape.dim, d = i % shape.dim;
        narrow(k[u64(blockIdx.x) * k_stride + i], keys_of<E>(page)[key_at(shape, head, slot, d)]);
        narrow(v[u64(blockIdx.x) * v_stride + i], values_of<E>(page, shape)[value_at(shape, head, slot, d)]);
    }
    sync_block();
    // The block that comes to its end last: all have read the length by then.
    if (threadIdx.x == 0) {
        fence();
        if (atomic_add(&header->ticket, 1) == gridDim.x - 1) {
            header->ticket = 0;
            header->length += gridDim.x;
        }
    }
}

// ---- few tokens ----------------------------------------------------------------------------------------------------------

// Query heads that go through a page together.
constexpr u32 TOGETHER = 8;
constexpr u32 DIM_MAX = 256;

// grid: (pages, key/value heads, sequences · most rows), 128 threads. Of every (row, head, page): outputs (D) and the pair of
// maximum and sum.
template <class E>
DEVICE void pages(
    const Sequences& sequences, const Shape& shape, u32 most_rows, u32 pages_max, const f32* q, u32 q_stride, f32* outputs, f32x2* sums) {
    SHARED f32 queries[TOGETHER][DIM_MAX], weights[TOGETHER][PAGE];
    const Sequence& sequence = sequences.at[blockIdx.z / most_rows];
    const u32 row = blockIdx.z % most_rows, kv_head = blockIdx.y, b = blockIdx.x, thread = threadIdx.x;
    if (row >= sequence.count) return;
    const u64 position = sequence.header->length - sequence.count + row;
    if (b > position / PAGE) return;
    const u32 n = min(PAGE, u32(position - u64(b) * PAGE) + 1), group = shape.heads / shape.kv_heads, dim = shape.dim;
    const E* keys = keys_of<E>(sequence.header->pages[b]);
    const E* values = values_of<E>(sequence.header->pages[b], shape);
    q += u64(sequence.first + row) * q_stride + kv_head * group * dim;
    for (u32 first = 0; first < group; first += TOGETHER) {
        const u32 heads = min(TOGETHER, group - first);
        sync_block();
        for (u32 i = thread; i < heads * dim; i += 128) queries[i / dim][i % dim] = q[first * dim + i];
        sync_block();
        // Scores: a position per thread, every other head.
        const u32 slot = thread % PAGE, parity = thread / PAGE;
        if (slot < n) {
            f32 dot[TOGETHER / 2] = {};
            const E* key = keys + key_at(shape, kv_head, slot, 0);
#pragma unroll 8
            for (u32 d = 0; d < dim; d++) {
                const f32 k = widen(key[16 * d]);
#pragma unroll
                for (u32 h = 0; h < TOGETHER / 2; h++) dot[h] = fma(queries[2 * h + parity][d], k, dot[h]);
            }
#pragma unroll
            for (u32 h = 0; h < TOGETHER / 2; h++) {
                if (2 * h + parity < heads) weights[2 * h + parity][slot] = dot[h] * shape.scale;
            }
        }
        sync_block();
        // The softmax of a head: a warp, both halves of it the same.
        for (u32 h = thread / 32; h < heads; h += 4) {
            const u32 lane = thread % 16;
            f32 largest = NEGATIVE_INFINITY;
            for (u32 i = lane; i < n; i += 16) largest = larger(weights[h][i], largest);
            for (u32 step = 8; step; step /= 2) largest = larger(shuffle_xor(largest, step), largest);
            f32 sum = 0, p[PAGE / 16];
#pragma unroll
            for (u32 k = 0; k < PAGE / 16; k++) {
                const u32 i = lane + 16 * k;
                p[k] = i < n ? math::exp(weights[h][i] - largest) : 0;
                if (i < n) sum += p[k];
            }
            sync_warp();
#pragma unroll
            for (u32 k = 0; k < PAGE / 16; k++) weights[h][lane + 16 * k] = p[k];
            sum = fold_lanes(sum);
            if (thread % 32 == 0) {
                const u64 query = u64(sequence.first + row) * shape.heads + kv_head * group + first + h;
                sums[query * pages_max + b] = f32x2{largest, sum};
            }
        }
        sync_block();
        // Outputs: a column per thread.
        for (u32 d = thread; d < dim; d += 128) {
            f32 o[TOGETHER] = {};
            const E* value = values + value_at(shape, kv_head, 0, d);
            const u32 step = min(16u, dim - d / 16 * 16);
#pragma unroll 8
            for (u32 i = 0; i < n; i++) {
                const f32 v = widen(value[i * step]);
#pragma unroll
                for (u32 h = 0; h < TOGETHER; h++) o[h] = fma(weights[h][i], v, o[h]);
            }
#pragma unroll
            for (u32 h = 0; h < TOGETHER; h++) {
                if (h < heads) {
                    const u64 query = u64(sequence.first + row) * shape.heads + kv_head * group + first + h;
                    outputs[(query * pages_max + b) * dim + d] = o[h];
                }
            }
        }
    }
}

// grid: (heads, sequences · most rows), 128 threads: combines the pages of a query in order, 128 of them at a time.
KERNEL(128, attention_combine)
(Sequences sequences, Shape shape, u32 most_rows, u32 pages_max, const f32* outputs, const f32x2* sums, f32* out) {
    SHARED f32 maxima[128], page_sums[128], before[128], own[128];
    const Sequence& sequence = sequences.at[blockIdx.y / most_rows];
    const u32 row = blockIdx.y % most_rows, head = blockIdx.x, thread = threadIdx.x, dim = shape.dim;
    if (row >= sequence.count) return;
    const u64 position = sequence.header->length - sequence.count + row;
    const u32 count = u32(position / PAGE) + 1;
    const u64 query = u64(sequence.first + row) * shape.heads + head;
    f32 m = NEGATIVE_INFINITY, z = 0, o[DIM_MAX / 128] = {};
    for (u32 first = 0; first < count; first += 128) {
        const u32 here = min(128u, count - first);
        sync_block();
        if (thread < here) {
            const f32x2 sum = sums[query * pages_max + first + thread];
            maxima[thread] = sum.x;
            page_sums[thread] = sum.y;
        }
        sync_block();
        f32 until = m;
        for (u32 b = 0; b < min(thread, here); b++) until = larger(maxima[b], until);
        if (thread < here) {
            const f32 largest = larger(maxima[thread], until);
            before[thread] = math::exp(until - largest);
            own[thread] = math::exp(maxima[thread] - largest);
        }
        sync_block();
#pragma unroll 4
        for (u32 b = 0; b < here; b++) {
            z = fma(z, before[b], page_sums[b] * own[b]);
            m = larger(maxima[b], m);
#pragma unroll
            for (u32 j = 0; j < DIM_MAX / 128; j++) {
                const u32 d = thread + 128 * j;
                if (d < dim) o[j] = fma(o[j], before[b], outputs[(query * pages_max + first + b) * dim + d] * own[b]);
            }
        }
    }
#pragma unroll
    for (u32 j = 0; j < DIM_MAX / 128; j++) {
        const u32 d = thread + 128 * j;
        if (d < dim) out[query * dim + d] = o[j] / z;
    }
}

// ---- many tokens ---------------------------------------------------------------------------------------------------------

constexpr u32 ROWS = 64;

// A block of 256 threads: 64 rows (token, head) of one key/value head, tokens outermost. Thread (i, j) of 16 × 16 has rows
// 4i .. 4i + 4, of scores the positions 4j .. 4j + 4, of outputs the columns 64c + 4j .. + 4 for c < C.
template <class E, u32 C>
DEVICE void tile(const Sequences& sequences, const Shape& shape, const f32* q, u32 q_stride, f32* out) {
    DYNAMIC_SHARED(f32, shared);
    constexpr u32 WIDE = 64 * C;             // Columns of outputs, those past D are zeros.
    f32* queries = shared;                   // (D, 64 rows)
    f32* weights = queries + shape.dim * ROWS;  // (64 positions, 64 rows)
    f32* page = weights + PAGE * ROWS;       // keys (D, 64) or values (64, WIDE)
    SHARED f32 maxima[ROWS], sums[ROWS], before[ROWS], own[ROWS];
    const Sequence& sequence = sequences.at[blockIdx.z];
    const u32 group = shape.heads / shape.kv_heads, dim = shape.dim, kv_head = blockIdx.y, thread = threadIdx.x;
    const u32 tokens_here = ROWS / group, first_token = blockIdx.x * tokens_here;
    if (first_token >= sequence.count) return;
    const u32 rows = min(tokens_here, sequence.count - first_token) * group;
    const u64 start = sequence.header->length - sequence.count + first_token;
    const u32 i0 = thread / 16 * 4, j0 = thread % 16 * 4;
    // Positions that a row sees of the page that begins at `from`.
    auto seen = [&](u32 row, u64 from) -> u32 {
        const u64 end = start + min(row, rows - 1) / group + 1;
        return end <= from ? 0 : u32(end - from < PAGE ? end - from : PAGE);
    };
    const f32* mine = q + u64(sequence.first + first_token) * q_stride + kv_head * group * dim;
    for (u32 i = thread; i < ROWS * dim; i += 256) {
        const u32 row = i / dim, d = i % dim;
        queries[d * ROWS + row] = row < rows ? mine[u64(row / group) * q_stride + row % group * dim + d] : 0;
    }
    if (thread < ROWS) maxima[thread] = NEGATIVE_INFINITY, sums[thread] = 0;
    f32 o[4][C][4] = {};
    const u64 last = start + (rows - 1) / group;
    for (u32 b = 0; b <= last / PAGE; b++) {
        const u64 from = u64(b) * PAGE;
        const u32 most = seen(rows - 1, from);
        const E* keys = keys_of<E>(sequence.header->pages[b]);
        const E* values = values_of<E>(sequence.header->pages[b], shape);
        sync_block();
        for (u32 i = thread; i < dim * PAGE; i += 256) {
            const u32 slot = i % PAGE, d = i / PAGE;
            page[i] = slot < most ? widen(keys[key_at(shape, kv_head, slot, d)]) : 0;
        }
        sync_block();
        f32 s[4][4] = {};
#pragma unroll 4
        for (u32 d = 0; d < dim; d++) {
            const f32x4 a = *reinterpret_cast<const f32x4*>(queries + d * ROWS + i0);
            const f32x4 k = *reinterpret_cast<const f32x4*>(page + d * PAGE + j0);
            const f32 rows_of[4] = {a.x, a.y, a.z, a.w}, columns_of[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
#pragma unroll
                for (u32 c = 0; c < 4; c++) s[r][c] = fma(rows_of[r], columns_of[c], s[r][c]);
            }
        }
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            *reinterpret_cast<f32x4*>(weights + (j0 + c) * ROWS + i0) =
                f32x4{s[0][c] * shape.scale, s[1][c] * shape.scale, s[2][c] * shape.scale, s[3][c] * shape.scale};
        }
        sync_block();
        // Values on their way to where the keys were, and meanwhile the softmax: four threads per row, each four of the
        // sixteen lanes of its sum.
        for (u32 i = thread; i < PAGE * WIDE; i += 256) {
            const u32 slot = i / WIDE, d = i % WIDE;
            page[i] = slot < most && d < dim ? widen(values[value_at(shape, kv_head, slot, d)]) : 0;
        }
        {
            const u32 row = thread / 4, part = thread % 4, n = seen(row, from);
            f32 largest = NEGATIVE_INFINITY;
            for (u32 i = 0; i < PAGE; i += 16) {
                for (u32 l = 0; l < 4; l++) {
                    const u32 slot = i + 4 * part + l;
                    if (slot < n) largest = larger(weights[slot * ROWS + row], largest);
                }
            }
            largest = larger(shuffle_xor(largest, 2), largest);
            largest = larger(shuffle_xor(largest, 1), largest);
            f32 lanes[4] = {};
            for (u32 i = 0; i < PAGE; i += 16) {
#pragma unroll
                for (u32 l = 0; l < 4; l++) {
                    const u32 slot = i + 4 * part + l;
                    if (slot < n) {
                        const f32 p = math::exp(weights[slot * ROWS + row] - largest);
                        weights[slot * ROWS + row] = p;
                        lanes[l] += p;
                    }
                }
            }
            // Lanes i and i + 8 are two threads apart, then 4 one thread, then 2 and 1 in the same one.
#pragma unroll
            for (u32 l = 0; l < 4; l++) lanes[l] += shuffle_xor(lanes[l], 2);
#pragma unroll
            for (u32 l = 0; l < 4; l++) lanes[l] += shuffle_xor(lanes[l], 1);
            const f32 sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
            if (part == 0 && n > 0) {
                const f32 m = maxima[row], both = larger(largest, m);
                const f32 c = math::exp(m - both), e = math::exp(largest - both);
                before[row] = c;
                own[row] = e;
                sums[row] = fma(sums[row], c, sum * e);
                maxima[row] = both;
            }
        }
        sync_block();
        f32 here[4][C][4] = {};
        u32 n[4], least = PAGE, greatest = 0;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            n[r] = seen(i0 + r, from);
            least = min(least, n[r]);
            greatest = max(greatest, n[r]);
        }
        auto weigh = [&](u32 i, bool all) {
            const f32x4 w = *reinterpret_cast<const f32x4*>(weights + i * ROWS + i0);
            const f32 p[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (u32 c = 0; c < C; c++) {
                const f32x4 v = *reinterpret_cast<const f32x4*>(page + i * WIDE + 64 * c + j0);
                const f32 columns_of[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (u32 r = 0; r < 4; r++) {
#pragma unroll
                    for (u32 k = 0; k < 4; k++) {
                        if (all || i < n[r]) here[r][c][k] = fma(p[r], columns_of[k], here[r][c][k]);
                    }
                }
            }
        };
#pragma unroll 2
        for (u32 i = 0; i < least; i++) weigh(i, true);
        for (u32 i = least; i < greatest; i++) weigh(i, false);
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            if (n[r] == 0) continue;
            const f32 c_before = before[i0 + r], e_own = own[i0 + r];
#pragma unroll
            for (u32 c = 0; c < C; c++) {
#pragma unroll
                for (u32 k = 0; k < 4; k++) o[r][c][k] = fma(o[r][c][k], c_before, here[r][c][k] * e_own);
            }
        }
    }
#pragma unroll
    for (u32 r = 0; r < 4; r++) {
        const u32 row = i0 + r;
        if (row >= rows) continue;
        const u64 token = sequence.first + first_token + row / group;
        f32* to = out + (token * shape.heads + kv_head * group + row % group) * dim;
        const f32 z = sums[row];
#pragma unroll
        for (u32 c = 0; c < C; c++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                const u32 d = 64 * c + j0 + k;
                if (d < dim) to[d] = o[r][c][k] / z;
            }
        }
    }
}

#define KERNELS(E, name)                                                                                               \
    KERNEL(256, attention_append_##name)                                                                               \
    (Header* header, Shape shape, const f32* k, u32 k_stride, const f32* v, u32 v_stride) {                            \
        append<E>(header, shape, k, k_stride, v, v_stride);                                                            \
    }                                                                                                                  \
    KERNEL(128, attention_pages_##name)                                                                                \
    (Sequences sequences, Shape shape, u32 most_rows, u32 pages_max, const f32* q, u32 q_stride, f32* outputs,         \
     f32x2* sums) {                                                                                                    \
        pages<E>(sequences, shape, most_rows, pages_max, q, q_stride, outputs, sums);                                  \
    }                                                                                                                  \
    KERNEL(256, attention_tile_64_##name)                                                                              \
    (Sequences sequences, Shape shape, const f32* q, u32 q_stride, f32* out) {                                         \
        tile<E, 1>(sequences, shape, q, q_stride, out);                                                                \
    }                                                                                                                  \
    KERNEL(256, attention_tile_128_##name)                                                                             \
    (Sequences sequences, Shape shape, const f32* q, u32 q_stride, f32* out) {                                         \
        tile<E, 2>(sequences, shape, q, q_stride, out);                                                                \
    }

KERNELS(f32, f32)
KERNELS(u16, f16)
#undef KERNELS
