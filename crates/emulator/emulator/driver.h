// What the two halves of the driver share: results, settings, the lock, and work on a stream.
//
// Work happens when it is asked for, so a stream is always idle and differs from another one only while it is captured.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "block.h"

#define ENTRY extern "C" __attribute__((visibility("default"))) Result

// The driver's numbers.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    GRAPH_UPDATE_REFUSED = 910,
};

// What the environment (`TANGELO_EMULATED_` and the name in capitals) or `tangelo_emulator_set` chooses.
struct Settings {
    u64 memory, capability, integrated, seed, check, fault;
};

struct State {
    Settings settings;
    u64 launches = 0;
    bool is_lost = false; // after a fault; everything fails from then on
};

State& state();
std::recursive_mutex& lock();

// The body of an entry point: alone, and refused once the device is lost.
template <class Body> Result entered(Body body) {
    const std::lock_guard<std::recursive_mutex> alone(lock());
    return state().is_lost ? LAUNCH_FAILED : body();
}

struct Shape {
    u32 blocks_x, blocks_y, blocks_z, threads_x, threads_y, threads_z, dynamic_bytes;
};

struct LaunchWork {
    const emulated::Kernel* kernel;
    Shape shape;
    // Copies of the arguments, since a graph outlives the caller's.
    std::vector<std::vector<u8>> arguments;
    std::vector<void*> pointers;

    // Where each of them is, until this is copied or moved.
    void** argument_pointers() {
        pointers.clear();
        for (auto& argument : arguments) pointers.push_back(argument.data());
        return pointers.data();
    }
};

struct CopyWork {
    u64 to, from;
    size_t bytes;
    bool to_device, from_device;
};

// `count` elements of `width` bytes, with the low bytes of `value`.
struct FillWork {
    u64 to;
    u32 value, width;
    size_t count;
};

struct HostWork {
    void (*call)(void*);
    void* argument;
};

struct NoWork {};

using Work = std::variant<LaunchWork, CopyWork, FillWork, HostWork, NoWork>;

struct Stream;

// Checks a launch and copies its arguments.
Result make_launch(const void* kernel, const Shape& shape, void** arguments, void** extra, LaunchWork* work);
// Does it now, or adds it to the graph that the stream is captured into.
Result submit(Stream* stream, Work work);
Result perform(Work& work);
// Refused while any stream is captured, as what would have to wait for it.
Result waited();
