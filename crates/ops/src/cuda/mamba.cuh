// What the kernels of a Mamba-2 mixer share: the sequences of a launch, the convolution of one channel, the step size
// of the recurrence, the norm of a group.
#pragma once

#include "device.cuh"
#include "math.cuh"

// Rows of one sequence, and the two parts of its state, (k - 1, c) and (h, p, n). An operation on one part has null for
// the other one. `SEQUENCE_WORDS` and `SEQUENCES_MAX` in sequences.rs.
struct Sequence {
    u32 first, count;
    f32 *conv, *ssm;
};
struct Sequences {
    Sequence at[16];
};

// Taps (k, c) and bias (c).
struct Conv {
    const f32 *weight, *bias;
    u32 channels, taps;
};

// What one channel of a sequence has been fed: k - 1 inputs from its state, then its column of x.
struct Inputs {
    const f32 *state, *x;
    u32 kept, state_stride, x_stride;
};

DEVICE Inputs inputs_of(const Conv& conv, const Sequence& sequence, const f32* x, u32 stride, u32 channel) {
    return {sequence.conv + channel, x + u64(sequence.first) * stride + channel, conv.taps - 1, conv.channels, stride};
}

DEVICE f32 input(const Inputs& inputs, u32 at) {
    return at < inputs.kept ? inputs.state[u64(at) * inputs.state_stride]
                            : inputs.x[u64(at - inputs.kept) * inputs.x_stride];
}

// silu of the convolution at token t.
DEVICE f32 convolve(const Conv& conv, const Inputs& inputs, u32 channel, u32 t) {
    f32 sum = conv.bias[channel];
    if (conv.taps == 4) { // All loads are under way before the first product.
        f32 w[4], x[4];
        for (u32 j = 0; j < 4; j++) w[j] = conv.weight[j * conv.channels + channel];
        for (u32 j = 0; j < 4; j++) x[j] = input(inputs, t + j);
        for (u32 j = 0; j < 4; j++) sum = fma(w[j], x[j], sum);
    } else {
        for (u32 j = 0; j < conv.taps; j++) {
            sum = fma(conv.weight[u64(j) * conv.channels + channel], input(inputs, t + j), sum);
        }
    }
    return math::silu(sum);
}

// Keeps the last k - 1 inputs of a channel. What is copied lies behind what is overwritten.
DEVICE void keep_inputs(const Inputs& inputs, const Sequence& sequence, u32 channel) {
    for (u32 i = 0; i < inputs.kept; i++) {
        sequence.conv[u64(i) * inputs.state_stride + channel] = input(inputs, sequence.count + i);
    }
}

// One entry per head; the bounds of delta.
struct Ssd {
    const f32 *A, *D, *dt_bias;
    f32 low, high;
};

// delta and exp(delta * A) of a token and a head.
DEVICE f32x2 discretise(const Ssd& ssd, u32 head, f32 dt) {
    f32 delta = math::softplus(dt + ssd.dt_bias[head]);
    delta = delta < ssd.low ? ssd.low : delta;
    delta = delta > ssd.high ? ssd.high : delta;
    return {delta, math::exp(delta * ssd.A[head])};
}

// Elements of a group that are in shared memory at a time.
constexpr u32 PIECE = 2048;

struct Group {
    f32 piece[PIECE];
    f32 scale;
};

// Normalises the `width` elements that `gated` returns, by all threads of a block: out = (u * r) * weight. Sixteen lanes
// add up the squares in their order, from shared memory, where all threads have put them.
template <class Gated>
DEVICE void normalise(u32 width, Gated gated, const f32* weight, f32 eps, f32* out, Group& group) {
    f32 squares = 0;
    for (u32 from = 0; from < width; from += PIECE) {
        const u32 count = width - from < PIECE ? width - from : PIECE;
        sync_block(); // The piece before, or of the row before, has been read.
        for (u32 i = threadIdx.x; i < count; i += blockDim.x) group.piece[i] = gated(from + i);
        sync_block();
        if (threadIdx.x < 32) { // Both halves of the warp compute the same.
            for (u32 i = threadIdx.x % 16; i < count; i += 16) squares = fma(group.piece[i], group.piece[i], squares);
        }
    }
    if (threadIdx.x < 32) {
        squares = fold_lanes(squares);
        if (threadIdx.x == 0) group.scale = 1.0f / sqrtf(squares / f32(width) + eps);
    }
    sync_block();
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const f32 u = width <= PIECE ? group.piece[i] : gated(i);
        out[i] = u * group.scale * weight[i];
    }
}
