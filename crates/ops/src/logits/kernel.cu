// Logits on the device: see mod.rs. A chunk is 64 logits.

#include "device.cuh"

KERNEL(256, logits_copy)(const f32* logits, f32* out, u32 len) {
    u32 end = min(len, (blockIdx.x + 1) * 1024);
    for (u32 i = blockIdx.x * 1024 + threadIdx.x; i < end; i += 256) out[i] = logits[i];
}

struct Change {
    u32 token;
    f32 repetition, penalty, bias;
};

KERNEL(256, logits_change)(f32* logits, u32 len, const Change* changes, u32 count) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count || changes[i].token >= len) return;
    Change change = changes[i];
    f32 logit = logits[change.token];
    logit = logit > 0.0f ? logit / change.repetition : logit * change.repetition;
    logits[change.token] = logit - change.penalty + change.bias;
}

// A warp per chunk, two logits per lane. Anything that is not below infinity makes the chunk's maximum NaN.
KERNEL(256, logits_maxima)(const f32* logits, u32 len, f32* maxima, u32 count) {
    u32 chunk = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (chunk >= count) return;
    f32 largest = as_f32(0xff800000u);
    u32 bad = 0;
    for (u32 i = chunk * 64 + lane; i < min(len, chunk * 64 + 64); i += 32) {
        f32 logit = logits[i];
        bad |= !(logit < as_f32(0x7f800000u));
        if (logit > largest) largest = logit;
    }
    for (u32 step = 16; step > 0; step /= 2) {
        f32 other = shuffle_xor(largest, step);
        bad |= shuffle_xor(bad, step);
        if (other > largest) largest = other;
    }
    if (lane == 0) maxima[chunk] = bad ? as_f32(0x7fc00000u) : largest;
}

// A block per chunk that is asked for.
KERNEL(64, logits_chunks)(const f32* logits, u32 len, const u32* which, f32* out) {
    u32 i = which[blockIdx.x] * 64 + threadIdx.x;
    if (i < len) out[blockIdx.x * 64 + threadIdx.x] = logits[i];
}
