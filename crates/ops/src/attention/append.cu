// Appends rows of keys and values to caches: a block writes the sixteen positions of a strip of keys, of one key/value
// head of one sequence. The block that finishes last moves the length on.

#include "cache.cuh"
#include "device.cuh"
#include "math.cuh"

template <class E> DEVICE E narrow(f32 x);
template <> DEVICE f32 narrow<f32>(f32 x) { return x; }
template <> DEVICE u16 narrow<u16>(f32 x) { return math::round_to_f16(x); }

template <class E>
DEVICE void append(const CachedSequence& sequence, const f32* k, u32 k_stride, const f32* v, u32 v_stride, u32 dim) {
    Cache* cache = sequence.cache;
    const u32 start = cache->length, end = start + sequence.count;
    const u32 strip = start / 16 + blockIdx.x, head = blockIdx.y;
    const u32 from = max(start, strip * 16), to = min(end, strip * 16 + 16);
    if (from < to) {
        const u64 page = cache->pages()[strip / 4];
        E* keys = keys_of<E>(page, head, dim) + strip % 4 * 16 * dim;
        E* values = values_of<E>(page, gridDim.y, head, dim);
        k += u64(sequence.first) * k_stride + head * dim;
        v += u64(sequence.first) * v_stride + head * dim;
        for (u32 i = threadIdx.x; i < 16 * dim; i += blockDim.x) { // In the order of the strip of keys.
            const u32 position = strip * 16 + i % 16;
            if (from <= position && position < to) keys[i] = narrow<E>(k[u64(position - start) * k_stride + i / 16]);
        }
        for (u32 i = threadIdx.x; i < (to - from) * dim; i += blockDim.x) { // In the order of the rows of v.
            const u32 position = from + i / dim, d = i % dim, first = d / 16 * 16;
            values[first * PAGE + position % PAGE * min(16u, dim - first) + d % 16] =
                narrow<E>(v[u64(position - start) * v_stride + d]);
        }
    }
    sync_block(); // All threads have read the length.
    if (threadIdx.x == 0) {
        fence();
        if (atomic_add(&cache->ticket, 1) == gridDim.x * gridDim.y - 1) {
            cache->length = end;
            cache->ticket = 0;
        }
    }
}

#define APPEND(type, E)                                                                                                \
    KERNEL(128, attention_append_##type)                                                                               \
    (CachedSequences sequences, const f32* k, u32 k_stride, const f32* v, u32 v_stride, u32 dim) {                           \
        append<E>(sequences.at[blockIdx.z], k, k_stride, v, v_stride, dim);                                            \
    }
APPEND(f32, f32)
APPEND(f16, u16)
