// A mixer between its projections for sequences of few tokens, in one launch: convolution, recurrence, gate and norm. Its
// time is that of reading and writing the recurrent state, so everything is arranged for that: a thread asks for all of its
// state before anything else, and for what it convolves next, so there is one wait for memory.
//
// A block has 64 rows of a group of one sequence, whatever heads they belong to (the 4B: 120 blocks for a sequence); four
// threads have a row. Thread q of the four has the elements 16 m + 4 q .. 4 q + 3, that is four of the contract's sixteen
// lanes, and loads them 16 bytes at a time. The block convolves its 64 channels of x, and B and C of its group, which the
// other blocks of the group do too: that is some kilobytes from the second-level cache, beside 64 n floats of state.
//
// The block of a group that comes last (a ticket says so) finds the gated outputs of all of them and normalises them; and it
// advances the convolution's state of B and C, which until then some block might have had to read. Blocks wait for nothing.

#include "mamba.cuh"

constexpr u32 ROWS = 64, THREADS = 256, TOKENS = 4;

// The parameters; a row of zxBCdt is z (g * group_rows), x (the same), B (g * n), C (g * n), dt (h).
struct Mixer {
    Conv conv;
    Ssd ssd;
    const f32* norm;
    f32 eps;
    u32 p, group_rows, groups;
};

template <u32 N> struct Scratch {
    f32 BC[TOKENS][2 * N], x[TOKENS][ROWS];
    Group group;
    u32 is_last;
};

// The channel of the convolution that is element i of B and C, one after the other, of a group.
template <u32 N> DEVICE u32 channel_of_BC(const Mixer& mixer, u32 group, u32 i) {
    const u32 begin = mixer.groups * mixer.group_rows;
    return begin + (i / N * mixer.groups + group) * N + i % N;
}

// Convolves what the block needs, and advances the state of its channels of x.
template <u32 N>
DEVICE void convolve_all(const Mixer& mixer, const Sequence& sequence, const f32* xBC, u32 stride, u32 group, u32 first,
                         u32 rows, Scratch<N>& scratch) {
    for (u32 i = threadIdx.x; i < 2 * N + rows; i += THREADS) {
        const bool is_x = i >= 2 * N;
        const u32 channel = is_x ? group * mixer.group_rows + first + i - 2 * N : channel_of_BC<N>(mixer, group, i);
        const Inputs inputs = inputs_of(mixer.conv, sequence, xBC, stride, channel);
        for (u32 t = 0; t < sequence.count; t++) {
            (is_x ? scratch.x[t][i - 2 * N] : scratch.BC[t][i]) = convolve(mixer.conv, inputs, channel, t);
        }
        if (is_x) keep_inputs(inputs, sequence, channel);
    }
}

// Carries four lanes' share of a row through a token and returns the row's product with C, in all four threads.
template <u32 N> DEVICE f32 advance(f32x4 (&s)[N / 16], f32 u, f32 a, const f32* B, const f32* C) {
    f32x4 sum = {0, 0, 0, 0};
#pragma unroll
    for (u32 m = 0; m < N / 16; m++) {
        const f32x4 b = *reinterpret_cast<const f32x4*>(B + 16 * m), c = *reinterpret_cast<const f32x4*>(C + 16 * m);
        s[m] = {fma(u, b.x, a * s[m].x), fma(u, b.y, a * s[m].y), fma(u, b.z, a * s[m].z), fma(u, b.w, a * s[m].w)};
        sum = {fma(c.x, s[m].x, sum.x), fma(c.y, s[m].y, sum.y), fma(c.z, s[m].z, sum.z), fma(c.w, s[m].w, sum.w)};
    }
    // The tree: lanes 8 and 4 apart are two threads and one away, those 2 and 1 apart are here.
#pragma unroll
    for (u32 distance = 2; distance > 0; distance /= 2) {
        sum.x += shuffle_xor(sum.x, distance);
        sum.y += shuffle_xor(sum.y, distance);
        sum.z += shuffle_xor(sum.z, distance);
        sum.w += shuffle_xor(sum.w, distance);
    }
    return (sum.x + sum.z) + (sum.y + sum.w);
}

// Whether this is the last of `blocks` blocks to come here, and so sees what the others wrote. It makes the ticket zero.
DEVICE bool is_last(u32* ticket, u32 blocks) {
    fence();
    const bool last = atomic_add(ticket, 1) == blocks - 1;
    if (last) *ticket = 0;
    fence();
    return last;
}

template <u32 N>
DEVICE void step(const Sequence& sequence, const Mixer& mixer, const f32* zxBCdt, u32 stride, f32* out, u32* tickets,
                 Scratch<N>& scratch) {
    const u32 slices = (mixer.group_rows + ROWS - 1) / ROWS, inner = mixer.groups * mixer.group_rows;
    const u32 group = blockIdx.x / slices, first = blockIdx.x % slices * ROWS;
    const u32 rows = mixer.group_rows - first < ROWS ? mixer.group_rows - first : ROWS;
    const u32 row = threadIdx.x / 4, q = threadIdx.x % 4;
    const bool has_row = row < rows;
    const u32 channel = group * mixer.group_rows + first + (has_row ? row : 0), head = channel / mixer.p;
    const f32* mine = zxBCdt + u64(sequence.first) * stride;
    out += u64(sequence.first) * inner;

    f32* state = sequence.ssm + u64(channel) * N + 4 * q;
    f32x4 s[N / 16];
#pragma unroll
    for (u32 m = 0; m < N / 16; m++) s[m] = *reinterpret_cast<const f32x4*>(state + 16 * m);
    // Thread q prepares token q for its row, and writes it.
    const u32 my_token = q < sequence.count ? q : 0;
    const bool writes = has_row && q < sequence.count;
    const f32 z = mine[u64(my_token) * stride + channel], skip = mixer.ssd.D[head];
    const f32 dt = mine[u64(my_token) * stride + inner + mixer.conv.channels + head];
    const f32x2 my_step = discretise(mixer.ssd, head, dt);
    convolve_all(mixer, sequence, zxBCdt + inner, stride, group, first, rows, scratch);
    sync_block();

    f32 y = 0;
    for (u32 t = 0; t < sequence.count; t++) {
        const u32 from = threadIdx.x % 32 - q + t;
        const f32 delta = shuffle(my_step.x, from), a = shuffle(my_step.y, from);
        const f32 x = scratch.x[t][has_row ? row : 0];
        const f32* B = scratch.BC[t] + 4 * q;
        const f32 sum = advance<N>(s, delta * x, a, B, B + N);
        if (t == q) y = fma(skip, x, sum);
    }
    if (writes) out[u64(q) * inner + channel] = y * math::silu(z);
    sync_block();
    if (threadIdx.x == 0) scratch.is_last = is_last(tickets + blockIdx.y * mixer.groups + group, slices);
    if (has_row) { // While the ticket is on its way.
#pragma unroll
        for (u32 m = 0; m < N / 16; m++) *reinterpret_cast<f32x4*>(state + 16 * m) = s[m];
    }
    sync_block();
    if (!scratch.is_last) return;

    for (u32 i = threadIdx.x; i < 2 * N; i += THREADS) {
        const u32 of_BC = channel_of_BC<N>(mixer, group, i);
        keep_inputs(inputs_of(mixer.conv, sequence, zxBCdt + inner, stride, of_BC), sequence, of_BC);
    }
    for (u32 t = 0; t < sequence.count; t++) {
        f32* u = out + u64(t) * inner + group * mixer.group_rows;
        const f32* norm = mixer.norm + group * mixer.group_rows;
        normalise(mixer.group_rows, [=](u32 i) { return u[i]; }, norm, mixer.eps, u, scratch.group);
    }
}

// `tickets` are zeros, 16 times g.
#define STEP(N)                                                                                                        \
    KERNEL(THREADS, mamba2_step_##N)                                                                                   \
    (Sequences sequences, Mixer mixer, const f32* zxBCdt, u32 stride, f32* out, u32* tickets) {                        \
        SHARED Scratch<N> scratch;                                                                                     \
        const Sequence sequence = sequences.at[blockIdx.y];                                                            \
        if (sequence.count > 0) step<N>(sequence, mixer, zxBCdt, stride, out, tickets, scratch);                       \
    }
STEP(64)
STEP(128)
STEP(256)
