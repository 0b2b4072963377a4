#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <map>

namespace memory {

namespace {

constexpr size_t GUARD_BYTES = 256;
constexpr size_t ALIGNED = 256;
// As f32, f16 and bf16 a NaN, so that reading it shows, and not what fresh memory is filled with.
constexpr u32 GUARD = 0xffc5ffc5;

std::map<u64, size_t> live, mapped;
size_t bytes_used;

u8* pointer(u64 address) { return reinterpret_cast<u8*>(address); }

// `at` need not be aligned: the guard behind an allocation starts at its last byte.
void set_guard(u8* at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += sizeof GUARD) std::memcpy(at + i, &GUARD, sizeof GUARD);
}

bool has_guard(const u8* at) {
    for (size_t i = 0; i < GUARD_BYTES; i += sizeof GUARD) {
        if (std::memcmp(at + i, &GUARD, sizeof GUARD)) return false;
    }
    return true;
}

bool is_inside(const std::map<u64, size_t>& ranges, u64 address, size_t bytes) {
    auto after = ranges.upper_bound(address);
    if (after == ranges.begin()) return false;
    const auto& [start, length] = *--after;
    return address - start <= length && bytes <= length - (address - start);
}

} // namespace

u64 allocate(size_t bytes, size_t card_bytes) {
    if (bytes > card_bytes || bytes_used > card_bytes - bytes) return 0;
    const size_t whole = (GUARD_BYTES + bytes + GUARD_BYTES + ALIGNED - 1) / ALIGNED * ALIGNED;
    u8* start = static_cast<u8*>(std::aligned_alloc(ALIGNED, whole));
    if (!start) return 0;
    u8* usable = start + GUARD_BYTES;
    set_guard(start, GUARD_BYTES);
    std::memset(usable, 0xff, bytes);
    set_guard(usable + bytes, GUARD_BYTES);
    const u64 address = reinterpret_cast<u64>(usable);
    live[address] = bytes;
    bytes_used += bytes;
    return address;
}

bool release(u64 address) {
    const auto found = live.find(address);
    if (found == live.end()) return false;
    bytes_used -= found->second;
    // Who still uses it finds undefined values there, as long as the allocator leaves them.
    std::memset(pointer(address), 0xff, found->second);
    std::free(pointer(address) - GUARD_BYTES);
    live.erase(found);
    return true;
}

bool holds(u64 address, size_t bytes) { return is_inside(live, address, bytes) || is_inside(mapped, address, bytes); }

size_t used() { return bytes_used; }

std::string damage() {
    for (const auto& [address, bytes] : live) {
        const bool before = !has_guard(pointer(address) - GUARD_BYTES);
        if (!before && has_guard(pointer(address) + bytes)) continue;
        set_guard(pointer(address) - GUARD_BYTES, GUARD_BYTES);
        set_guard(pointer(address) + bytes, GUARD_BYTES);
        return std::string("a write ") + (before ? "before" : "behind") + " an allocation of " + std::to_string(bytes) + " bytes";
    }
    return {};
}

void map_host(u64 address, size_t bytes) { mapped[address] = bytes; }
bool unmap_host(u64 address) { return mapped.erase(address); }

} // namespace memory
