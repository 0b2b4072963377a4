// Read bandwidth: all threads side by side read 16 bytes at a time, and keep the sum of the words so that no read can be
// left out. A thread has four reads under way and each multiprocessor 2,048 threads: 128 KiB, three times what the fastest
// cards deliver in the time that memory takes to answer.

#include "device.cuh"

DEVICE u32 add_up(u32x4 v) { return v.x + v.y + v.z + v.w; }

KERNEL(256, probe_read)(const u32x4* src, u32 count, u32* sums) {
    const u32 threads = gridDim.x * blockDim.x, thread = blockIdx.x * blockDim.x + threadIdx.x;
    u32 sum = 0, at = thread;
    for (; at + 3 * threads < count; at += 4 * threads) {
        const u32x4 a = load_once(src + at), b = load_once(src + at + threads);
        const u32x4 c = load_once(src + at + 2 * threads), d = load_once(src + at + 3 * threads);
        sum += add_up(a) + add_up(b) + add_up(c) + add_up(d);
    }
    for (; at < count; at += threads) sum += add_up(load_once(src + at));
    sums[thread] = sum;
}
