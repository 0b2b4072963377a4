// Causal convolution and silu: a thread per channel and tile of tokens of a sequence. Every input but the first k - 1 of a
// tile is read once; neighbours read neighbours, so nothing is gained by shared memory.
//
// The thread of the first tile advances the state of its channel once it has read it. No other tile looks at the state,
// because tiles are no shorter than it.

#include "mamba.cuh"

KERNEL(256, causal_conv)(Sequences sequences, Conv conv, const f32* x, u32 stride, f32* out, u32 out_stride, u32 tile) {
    const Sequence sequence = sequences.at[blockIdx.z];
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x, begin = blockIdx.y * tile;
    if (channel >= conv.channels || begin >= sequence.count) return;
    const u32 end = sequence.count - begin < tile ? sequence.count : begin + tile;
    const Inputs inputs = inputs_of(conv, sequence, x, stride, channel);
    out += u64(sequence.first) * out_stride + channel;
    if (conv.taps == 4) {
        f32 w[4], window[4];
        for (u32 j = 0; j < 4; j++) w[j] = conv.weight[j * conv.channels + channel];
        for (u32 j = 0; j < 3; j++) window[j] = input(inputs, begin + j);
        const f32 bias = conv.bias[channel];
        for (u32 t = begin; t < end; t++) {
            window[3] = input(inputs, t + 3);
            f32 sum = bias;
            for (u32 j = 0; j < 4; j++) sum = fma(w[j], window[j], sum);
            for (u32 j = 0; j < 3; j++) window[j] = window[j + 1];
            out[u64(t) * out_stride] = math::silu(sum);
        }
    } else {
        for (u32 t = begin; t < end; t++) out[u64(t) * out_stride] = convolve(conv, inputs, channel, t);
    }
    if (begin == 0) keep_inputs(inputs, sequence, channel);
}
