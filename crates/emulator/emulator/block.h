// Runs a kernel: one block after the other, each thread of a block a fibre with a stack of its own, all of them on the
// system's thread that launches. A fibre runs until it waits for others, so a result that depends on the order of
// threads, because a barrier is missing, is a wrong result; the order can be shuffled (`Launch::seed`).
#pragma once

#include <cstddef>
#include <string>

#include "../../ops/src/cuda/device.cuh"

namespace emulated {

// Largest dynamic shared memory of a block, as on an sm_86 card.
constexpr u32 DYNAMIC_BYTES_MAX = 99 << 10;
constexpr u32 THREADS_MAX = 1024;

struct Launch {
    const Kernel* kernel;
    Index blocks, threads;
    u32 dynamic_bytes;
    void* const* arguments;
    // 0: threads run in increasing order; else the order is drawn from this number.
    u64 seed;
};

// Runs all blocks. Empty if all is well, else one sentence: which thread of which block did what.
// Shared memory is filled with a NaN before a block. One launch at a time.
std::string run(const Launch& launch);

} // namespace emulated
