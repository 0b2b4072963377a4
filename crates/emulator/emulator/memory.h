// The memory of the card: a list of live allocations in the host's memory, each between two guards, so that a copy or a
// fill outside of them is refused and a kernel's write beside one is found.
#pragma once

#include <cstddef>
#include <string>

#include "../../ops/src/cuda/device.cuh"

namespace memory {

// Address of new memory filled with a NaN (0xff bytes), aligned to 256; 0 if the card has less than that left.
u64 allocate(size_t bytes, size_t card_bytes);
// False if nothing was allocated there.
bool release(u64 address);
// Whether all of it lies in one live allocation, or in host memory that the card may use.
bool holds(u64 address, size_t bytes);
// Bytes in live allocations.
size_t used();
// Empty, or a sentence about a guard that was written to.
std::string damage();

// Host memory that the card may use.
void map_host(u64 address, size_t bytes);
bool unmap_host(u64 address);

} // namespace memory
