// Attention of few tokens: all pages at the same time, then what they came to is combined in order; mod.rs has the formulas.
//
// `pages`: a warp per page, four to a block, for up to ROWS queries (token, head) of one key/value head, whose keys and
// values are read once, straight from memory. A lane owns two positions while scores are summed over d, and two columns while
// weighted values are summed over positions, so each sum runs in one register in its order. Queries and weights come
// from shared memory, ROWS at a time.
//
// `combine`: a block per query and 32 columns. Factors depend on maxima only and are computed by all threads for 128 pages at
// once; a warp then goes through these pages, a column per lane, while the sums of the next 128 are on their way.

#include "cache.cuh"
#include "device.cuh"
#include "math.cuh"

// Pages come to m and z (query, page) and o (query, page, D rounded up to 32), a query being (sequence, token, head).
struct Partials {
    f32 *m, *z, *o;
    u32 capacity; // Pages.
    u32 tokens;   // Per sequence.
};

DEVICE u32 padded(u32 dim) { return (dim + 31) / 32 * 32; }

// Two neighbours in memory.
template <class E> struct PairOf;
template <> struct PairOf<f32> { using Type = f32x2; };
template <> struct PairOf<u16> { using Type = u32; };

DEVICE f32x2 widen_both(f32x2 pair) { return pair; }
DEVICE f32x2 widen_both(u32 pair) { return {widen(u16(pair)), widen(u16(pair >> 16))}; }

template <class E> DEVICE f32x2 load_pair(const E* at) {
    return widen_both(load_once(reinterpret_cast<const typename PairOf<E>::Type*>(at)));
}

// ROWS numbers side by side in shared memory, which has room for a multiple of four.
template <u32 ROWS> struct RowsOf {
    static constexpr u32 WIDTH = (ROWS + 3) / 4 * 4;
    f32 at[WIDTH];

    DEVICE void load(const f32* from) {
        for (u32 i = 0; i < WIDTH; i += 4) {
            const f32x4 four = *reinterpret_cast<const f32x4*>(from + i);
            at[i] = four.x, at[i + 1] = four.y, at[i + 2] = four.z, at[i + 3] = four.w;
        }
    }
    DEVICE void store(f32* to) const {
        for (u32 i = 0; i < WIDTH; i += 4) {
            *reinterpret_cast<f32x4*>(to + i) = f32x4{at[i], at[i + 1], at[i + 2], at[i + 3]};
        }
    }
};

// Elements of the queries in shared memory.
constexpr u32 CHUNK = 256;

// A page of one key/value head against queries first_row .. first_row + ROWS of it, in order of tokens, then heads.
template <class E, u32 ROWS> struct Attend {
    using Rows = RowsOf<ROWS>;
    u32 dim, lane;
    const E *keys, *values;
    u32 n[ROWS];     // Positions that each row sees.
    u32 least, most; // Of these.
    f32 s[ROWS][2];

    // Continues the scores with elements d0 .. d0 + count; q (count, WIDTH).
    DEVICE void score(const f32* q, u32 d0, u32 count) {
        const E* at = keys + u64(lane / 8 * dim + d0) * 16 + lane % 8 * 2;
#pragma unroll 8
        for (u32 d = 0; d < count; d++) {
            const f32x2 k = load_pair(at + d * 16);
            Rows row;
            row.load(q + d * Rows::WIDTH);
            for (u32 r = 0; r < ROWS; r++) {
                s[r][0] = fma(row.at[r], k.x, s[r][0]);
                s[r][1] = fma(row.at[r], k.y, s[r][1]);
            }
        }
    }

    // Scores to weights p (64, WIDTH); m and z get the maximum and the sum of each row, in all lanes and in lane 0 or 16.
    DEVICE void soften(f32 scale, f32* p, f32 (&m)[ROWS], f32 (&z)[ROWS]) {
        Rows weights[2] = {};
        for (u32 r = 0; r < ROWS; r++) {
            m[r] = minus_infinity();
            for (u32 i = 0; i < 2; i++) {
                s[r][i] = 2 * lane + i < n[r] ? s[r][i] * scale : minus_infinity();
                m[r] = larger(s[r][i], m[r]);
            }
            for (u32 step = 16; step; step /= 2) m[r] = larger(shuffle_xor(m[r], step), m[r]);
            for (u32 i = 0; i < 2; i++) weights[i].at[r] = math::exp(s[r][i] - m[r]);
        }
        for (u32 i = 0; i < 2; i++) weights[i].store(p + (2 * lane + i) * Rows::WIDTH);
        sync_warp();
        for (u32 r = 0; r < ROWS; r++) {
            const f32* at = p + lane % 16 * Rows::WIDTH + r;
            f32 sum = at[0];
            for (u32 i = 16; i < PAGE; i += 16) sum += at[i * Rows::WIDTH];
            z[r] = fold_lanes(sum);
        }
    }

    // Columns `column` and the next one of the outputs.
    DEVICE void weigh(const f32* p, u32 column, f32 (&o)[ROWS][2]) {
        const u32 first = column / 16 * 16, width = min(16u, dim - first);
        const E* at = values + first * PAGE + column % 16;
        if (least == most && dim % 2 == 0) {
#pragma unroll 8
            for (u32 i = 0; i < most; i++) {
                const f32x2 v = load_pair(at + i * width);
                Rows row;
                row.load(p + i * Rows::WIDTH);
                for (u32 r = 0; r < ROWS; r++) {
                    o[r][0] = fma(row.at[r], v.x, o[r][0]);
                    o[r][1] = fma(row.at[r], v.y, o[r][1]);
                }
            }
            return;
        }
        const u32 next = column + 1 < dim; // Or the same column once more.
        for (u32 i = 0; i < most; i++) {
            const f32 v[2] = {widen(at[i * width]), widen(at[i * width + next])};
            for (u32 r = 0; r < ROWS; r++) {
                const f32 weight = p[i * Rows::WIDTH + r];
                for (u32 x = 0; x < 2; x++) o[r][x] = i < n[r] ? fma(weight, v[x], o[r][x]) : o[r][x];
            }
        }
    }
};

// Blocks (four pages, key/value head and ROWS of its queries, sequence). Shared: q (CHUNK, WIDTH), p (4, 64, WIDTH).
template <class E, u32 ROWS>
DEVICE void pages(const CachedSequences& sequences, const f32* q, u32 stride, u32 heads, u32 kv_heads, u32 dim, f32 scale,
                  const Partials& partials, f32* shared_q, f32* shared_p) {
    constexpr u32 WIDTH = RowsOf<ROWS>::WIDTH;
    const CachedSequence& sequence = sequences.at[blockIdx.z];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = blockIdx.x * 4 + warp;
    const u32 per_kv_head = heads / kv_heads, rows = sequence.count * per_kv_head;
    const u32 passes = gridDim.y / kv_heads, kv_head = blockIdx.y / passes, first_row = blockIdx.y % passes * ROWS;
    if (first_row >= rows) return;
    const u32 num_pages = pages_of(sequence.seen_by(sequence.count - 1));
    if (blockIdx.x * 4 >= num_pages) return;

    Attend<E, ROWS> attend;
    attend.dim = dim, attend.lane = lane, attend.least = PAGE, attend.most = 0;
    if (b < num_pages) {
        const u64 page = sequence.cache->pages()[b];
        attend.keys = keys_of<E>(page, kv_head, dim);
        attend.values = values_of<E>(page, kv_heads, kv_head, dim);
    }
    for (u32 r = 0; r < ROWS; r++) { // There may be fewer rows: then the last one is there several times.
        const u32 seen = sequence.seen_by(min(first_row + r, rows - 1) / per_kv_head);
        const u32 n = seen > b * PAGE ? min(PAGE, seen - b * PAGE) : 0;
        attend.n[r] = n, attend.least = min(attend.least, n), attend.most = max(attend.most, n);
        attend.s[r][0] = attend.s[r][1] = 0;
    }
    for (u32 d0 = 0; d0 < dim; d0 += CHUNK) {
        const u32 count = min(CHUNK, dim - d0);
        sync_block();
        for (u32 i = threadIdx.x; i < ROWS * count; i += blockDim.x) {
            const u32 r = i / count, d = i % count, row = min(first_row + r, rows - 1);
            const u64 head = kv_head * per_kv_head + row % per_kv_head;
            shared_q[d * WIDTH + r] = q[u64(sequence.first + row / per_kv_head) * stride + head * dim + d0 + d];
        }
        sync_block();
        if (attend.most > 0) attend.score(shared_q, d0, count);
    }
    if (attend.most == 0) return;

    f32 m[ROWS], z[ROWS], *p = shared_p + warp * PAGE * WIDTH;
    attend.soften(scale, p, m, z);
    u64 at[ROWS]; // Where the page comes to for each row.
    bool is_seen[ROWS];
    for (u32 r = 0; r < ROWS; r++) {
        const u32 row = first_row + r, head = kv_head * per_kv_head + row % per_kv_head;
        const u64 query = u64(blockIdx.z * partials.tokens + row / per_kv_head) * heads + head;
        at[r] = query * partials.capacity + b;
        is_seen[r] = row < rows && attend.n[r] > 0;
        if (lane == 0 && is_seen[r]) partials.m[at[r]] = m[r], partials.z[at[r]] = z[r];
    }
    for (u32 column = 2 * lane; column < dim; column += 64) {
        f32 o[ROWS][2] = {};
        attend.weigh(p, column, o);
        for (u32 r = 0; r < ROWS; r++) {
            f32x2* to = reinterpret_cast<f32x2*>(partials.o + at[r] * padded(dim) + column);
            if (is_seen[r]) *to = f32x2{o[r][0], o[r][1]};
        }
    }
}

#define PAGES(rows, type, E)                                                                                           \
    KERNEL(128, attention_pages_##rows##_##type)                                                                       \
    (CachedSequences sequences, const f32* q, u32 stride, u32 heads, u32 kv_heads, u32 dim, f32 scale, Partials partials) {  \
        SHARED f32 shared_q[CHUNK * RowsOf<rows>::WIDTH];                                                              \
        SHARED f32 shared_p[4 * PAGE * RowsOf<rows>::WIDTH];                                                           \
        pages<E, rows>(sequences, q, stride, heads, kv_heads, dim, scale, partials, shared_q, shared_p);               \
    }
PAGES(2, f32, f32)
PAGES(4, f32, f32)
PAGES(5, f32, f32)
PAGES(8, f32, f32)
PAGES(2, f16, u16)
PAGES(4, f16, u16)
PAGES(5, f16, u16)
PAGES(8, f16, u16)

// Pages whose factors are computed at once, one per thread.
constexpr u32 GROUP = 128;

// Columns x .. x + 32 of o of pages group · GROUP .., on their way to shared memory.
DEVICE void fetch(f32* shared, const f32* o, u32 group, u32 num_pages, u32 stride) {
    const u32 first = group * GROUP, count = first < num_pages ? min(GROUP, num_pages - first) : 0;
    for (u32 i = threadIdx.x; i < count * 8; i += GROUP) {
        copy_async16(shared + i * 4, o + u64(first + i / 8) * stride + i % 8 * 4);
    }
    copy_async_commit();
}

// Factors c and e of this thread's page, given its maximum and that of all pages before the group, which moves on.
DEVICE f32x2 factors(f32 m, f32& before, f32* of_warp) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    f32 upto = m; // The maximum of this warp up to this page.
    for (u32 step = 1; step < 32; step *= 2) {
        const f32 other = shuffle(upto, (lane - step) % 32);
        if (lane >= step) upto = larger(other, upto);
    }
    if (lane == 31) of_warp[warp] = upto;
    const f32 left = shuffle(upto, (lane - 1) % 32);
    sync_block();
    f32 old = before;
    for (u32 w = 0; w < 4; w++) {
        if (w < warp) old = larger(of_warp[w], old);
        before = larger(of_warp[w], before);
    }
    if (lane > 0) old = larger(left, old);
    const f32 now = larger(m, old);
    return {math::exp(old - now), math::exp(m - now)};
}

// Blocks (32 columns, (token, head), sequence).
KERNEL(128, attention_combine)(CachedSequences sequences, Partials partials, f32* out, u32 heads, u32 dim) {
    SHARED f32 sums[2][GROUP * 32];
    SHARED f32x4 terms[GROUP]; // c, e, z_b · e
    SHARED f32 of_warp[4];
    const CachedSequence& sequence = sequences.at[blockIdx.z];
    const u32 t = blockIdx.y / heads, head = blockIdx.y % heads, first_column = blockIdx.x * 32;
    if (t >= sequence.count) return;
    const u32 num_pages = pages_of(sequence.seen_by(t)), groups = (num_pages + GROUP - 1) / GROUP;
    const u64 at = (u64(blockIdx.z * partials.tokens + t) * heads + head) * partials.capacity;
    const f32* o_pages = partials.o + at * padded(dim) + first_column;
    f32 z = 0, o = 0, before = minus_infinity();
    fetch(sums[0], o_pages, 0, num_pages, padded(dim));
    for (u32 group = 0; group < groups; group++) {
        fetch(sums[(group + 1) % 2], o_pages, group + 1, num_pages, padded(dim));
        const u32 b = group * GROUP + threadIdx.x;
        const f32 m = b < num_pages ? partials.m[at + b] : minus_infinity();
        const f32x2 factor = factors(m, before, of_warp);
        const f32 z_page = b < num_pages ? partials.z[at + b] * factor.y : 0.0f;
        terms[threadIdx.x] = f32x4{factor.x, factor.y, z_page, 0};
        copy_async_wait<1>();
        sync_block();
        if (threadIdx.x < 32) {
            const u32 count = min(GROUP, num_pages - group * GROUP);
#pragma unroll 8
            for (u32 i = 0; i < count; i++) {
                const f32x4 term = terms[i];
                z = fma(z, term.x, term.z);
                o = fma(o, term.x, sums[group % 2][i * 32 + threadIdx.x] * term.y);
            }
        }
        sync_block();
    }
    const u32 column = first_column + threadIdx.x;
    if (threadIdx.x < 32 && column < dim) out[(u64(sequence.first + t) * heads + head) * dim + column] = o / z;
}
