// The entry points of the driver for devices, memory, modules and launches; streams and graphs are in graph.cpp.
// Signatures are those of the driver API 12, as far as they are called here; handles that carry nothing are one byte.
#include "driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "memory.h"

namespace {

u64 from_environment(const char* name, u64 otherwise) {
    const char* text = std::getenv((std::string("TANGELO_EMULATED_") + name).c_str());
    return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// "8.6" is 86, as is "86".
u64 capability_from_environment() {
    const char* text = std::getenv("TANGELO_EMULATED_CAPABILITY");
    std::string digits;
    for (; text && *text; text++) {
        if (*text != '.') digits += *text;
    }
    return digits.empty() ? 86 : std::strtoull(digits.c_str(), nullptr, 10);
}

// Filled by the kernels' files while the library is loaded, in any order.
std::map<std::string, emulated::Kernel*>& kernels() {
    static std::map<std::string, emulated::Kernel*> all;
    return all;
}

char context_handle, module_handle, pool_handle;
thread_local void* context_of_thread;

u64 address_of(const void* p) { return reinterpret_cast<u64>(p); }

Result allocate(u64* address, size_t bytes) {
    if (!bytes) return INVALID_VALUE;
    *address = memory::allocate(bytes, state().settings.memory);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

Result release(u64 address) {
    if (!address) return SUCCESS;
    const std::string damage = memory::damage();
    if (!damage.empty()) std::fprintf(stderr, "emulator: found when memory was freed: %s\n", damage.c_str());
    if (!memory::release(address)) return INVALID_VALUE;
    return damage.empty() ? SUCCESS : LAUNCH_FAILED;
}

} // namespace

void emulated::add(Kernel* kernel) {
    if (!kernels().emplace(kernel->name, kernel).second) {
        std::fprintf(stderr, "emulator: two kernels are named %s\n", kernel->name);
        std::abort();
    }
}

State& state() {
    static State one{{
        from_environment("MEMORY", 2ull << 30),
        capability_from_environment(),
        from_environment("INTEGRATED", 0),
        from_environment("SEED", 0),
        from_environment("CHECK", 1),
        from_environment("FAULT", 0),
    }};
    return one;
}

std::recursive_mutex& lock() {
    static std::recursive_mutex one;
    return one;
}

Result make_launch(const void* handle, const Shape& s, void** arguments, void** extra, LaunchWork* work) {
    const auto* kernel = static_cast<const emulated::Kernel*>(handle);
    if (!kernel) return INVALID_HANDLE;
    const u64 threads = u64{s.threads_x} * s.threads_y * s.threads_z;
    const bool has_blocks = s.blocks_x && s.blocks_y && s.blocks_z;
    const bool fits = s.blocks_x <= 0x7fffffff && s.blocks_y <= 65535 && s.blocks_z <= 65535 && s.threads_x <= 1024 &&
                      s.threads_y <= 1024 && s.threads_z <= 64 && threads <= kernel->max_threads &&
                      threads <= emulated::THREADS_MAX;
    if (!has_blocks || !threads || !fits || s.dynamic_bytes > kernel->dynamic_max || extra ||
        (kernel->parameters && !arguments)) {
        std::fprintf(stderr,
                     "emulator: launch of %s refused: grid %u,%u,%u, block %u,%u,%u of at most %u, "
                     "dynamic shared memory %u of at most %u\n",
                     kernel->name, s.blocks_x, s.blocks_y, s.blocks_z, s.threads_x, s.threads_y, s.threads_z,
                     kernel->max_threads, s.dynamic_bytes, kernel->dynamic_max);
        return INVALID_VALUE;
    }
    work->kernel = kernel;
    work->shape = s;
    work->arguments.clear();
    for (u32 i = 0; i < kernel->parameters; i++) {
        const auto* bytes = static_cast<const u8*>(arguments[i]);
        work->arguments.emplace_back(bytes, bytes + kernel->sizes[i]);
    }
    return SUCCESS;
}

namespace {

Result perform_launch(LaunchWork& work) {
    State& s = state();
    s.launches++;
    if (s.settings.fault && s.launches >= s.settings.fault) {
        s.is_lost = true;
        return LAUNCH_FAILED;
    }
    emulated::Launch launch{};
    launch.kernel = work.kernel;
    launch.blocks = {work.shape.blocks_x, work.shape.blocks_y, work.shape.blocks_z};
    launch.threads = {work.shape.threads_x, work.shape.threads_y, work.shape.threads_z};
    launch.dynamic_bytes = work.shape.dynamic_bytes;
    launch.arguments = work.argument_pointers();
    launch.seed = s.settings.seed;
    std::string trouble = emulated::run(launch);
    if (trouble.empty() && s.settings.check) {
        const std::string damage = memory::damage();
        if (!damage.empty()) trouble = std::string("kernel ") + work.kernel->name + ": " + damage;
    }
    if (trouble.empty()) return SUCCESS;
    std::fprintf(stderr, "emulator: %s\n", trouble.c_str());
    return LAUNCH_FAILED;
}

Result perform_copy(const CopyWork& work) {
    if (work.to_device && !memory::holds(work.to, work.bytes)) return INVALID_VALUE;
    if (work.from_device && !memory::holds(work.from, work.bytes)) return INVALID_VALUE;
    std::memmove(reinterpret_cast<void*>(work.to), reinterpret_cast<const void*>(work.from), work.bytes);
    return SUCCESS;
}

Result perform_fill(const FillWork& work) {
    if (!memory::holds(work.to, work.count * work.width) || work.to % work.width) return INVALID_VALUE;
    auto* to = reinterpret_cast<u8*>(work.to);
    for (size_t i = 0; i < work.count; i++) std::memcpy(to + i * work.width, &work.value, work.width);
    return SUCCESS;
}

} // namespace

Result perform(Work& work) {
    if (state().is_lost) return LAUNCH_FAILED;
    if (auto* launch = std::get_if<LaunchWork>(&work)) return perform_launch(*launch);
    if (auto* copy = std::get_if<CopyWork>(&work)) return perform_copy(*copy);
    if (auto* fill = std::get_if<FillWork>(&work)) return perform_fill(*fill);
    if (auto* host = std::get_if<HostWork>(&work)) host->call(host->argument);
    return SUCCESS;
}

// Beside the driver's: for the tests that know they run on the emulator.

#define TEST_ENTRY extern "C" __attribute__((visibility("default"))) u64

// 1 if there is such a setting.
TEST_ENTRY tangelo_emulator_set(const char* name, u64 value) {
    const std::lock_guard<std::recursive_mutex> alone(lock());
    Settings& s = state().settings;
    const std::map<std::string, u64*> all = {
        {"memory", &s.memory}, {"capability", &s.capability}, {"integrated", &s.integrated},
        {"seed", &s.seed},     {"check", &s.check},           {"fault", &s.fault},
    };
    const auto found = all.find(name);
    if (found == all.end()) return 0;
    *found->second = value;
    // A fault is counted from here; setting none brings the device back.
    if (found->first == "fault") {
        state().is_lost = false;
        state().launches = 0;
    }
    return 1;
}

TEST_ENTRY tangelo_emulator_launches(const char*, u64) {
    const std::lock_guard<std::recursive_mutex> alone(lock());
    return state().launches;
}

TEST_ENTRY tangelo_emulator_allocated(const char*, u64) {
    const std::lock_guard<std::recursive_mutex> alone(lock());
    return memory::used();
}

// Errors.

ENTRY cuGetErrorName(int error, const char** name) {
    static const std::map<int, const char*> names = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {GRAPH_UPDATE_REFUSED, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"},
    };
    const auto found = names.find(error);
    *name = found == names.end() ? nullptr : found->second;
    return *name ? SUCCESS : INVALID_VALUE;
}
ENTRY cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

// Devices: one, like a small sm_86 card.

ENTRY cuInit(u32) {
    return entered([] { return SUCCESS; });
}
ENTRY cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
ENTRY cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}
ENTRY cuDeviceGet(int* device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}
ENTRY cuDeviceGetName(char* name, int length, int) {
    if (length <= 0) return INVALID_VALUE;
    std::snprintf(name, static_cast<size_t>(length), "emulated device");
    return SUCCESS;
}
ENTRY cuDeviceGetUuid(char* uuid, int) {
    std::memcpy(uuid, "emulated device", 16);
    return SUCCESS;
}
ENTRY cuDeviceGetUuid_v2(char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }
ENTRY cuDeviceTotalMem_v2(size_t* bytes, int) {
    return entered([&] {
        *bytes = state().settings.memory;
        return SUCCESS;
    });
}

ENTRY cuDeviceGetAttribute(int* value, int attribute, int) {
    static const std::map<int, int> values = {
        {1, 1024},   {2, 1024},      {3, 1024},  {4, 64},    // threads of a block, in all and by dimension
        {5, 2147483647}, {6, 65535}, {7, 65535},             // blocks of a grid
        {8, 48 << 10},   {97, 99 << 10}, {81, 100 << 10},    // shared memory of a block, if asked for, of a processor
        {111, 1 << 10},  {9, 64 << 10},                      // shared memory kept by the system, constant memory
        {10, 32},    {12, 65536},    {82, 65536},            // warp, registers of a block and of a processor
        {16, 4},     {39, 1536},     {106, 16},              // processors, their threads and blocks
        {13, 1500000},   {36, 7000000}, {37, 128},           // kHz of processors and memory, width of its bus
        {38, 2 << 20},                                       // level-2 cache
        {19, 1},     {31, 1},        {41, 1},    {78, 1},    // host memory mapped, kernels at once, one address space
        {83, 1},     {99, 1},        {115, 1},               // managed memory, host memory registered, memory pools
    };
    return entered([&] {
        const Settings& s = state().settings;
        const auto found = values.find(attribute);
        if (attribute == 18) {
            *value = static_cast<int>(s.integrated);
        } else if (attribute == 75) {
            *value = static_cast<int>(s.capability / 10);
        } else if (attribute == 76) {
            *value = static_cast<int>(s.capability % 10);
        } else {
            *value = found == values.end() ? 0 : found->second;
        }
        return SUCCESS;
    });
}

// Contexts: the primary one.

ENTRY cuDevicePrimaryCtxRetain(void** context, int device) {
    return entered([&] {
        *context = &context_handle;
        return device == 0 ? SUCCESS : INVALID_DEVICE;
    });
}
ENTRY cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
ENTRY cuCtxSetCurrent(void* context) {
    context_of_thread = context;
    return entered([] { return SUCCESS; });
}
ENTRY cuCtxGetCurrent(void** context) {
    *context = context_of_thread;
    return SUCCESS;
}
ENTRY cuCtxGetDevice(int* device) {
    *device = 0;
    return SUCCESS;
}
ENTRY cuCtxSynchronize() { return entered(waited); }
ENTRY cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

// Memory.

ENTRY cuMemAlloc_v2(u64* address, size_t bytes) {
    return entered([&] { return allocate(address, bytes); });
}
ENTRY cuMemAllocManaged(u64* address, size_t bytes, u32) { return cuMemAlloc_v2(address, bytes); }
ENTRY cuMemFree_v2(u64 address) {
    return entered([&] { return release(address); });
}
// Within a captured stream an allocation would be a node; nothing here wants that.
ENTRY cuMemAllocAsync(u64* address, size_t bytes, Stream*) {
    return entered([&] {
        const Result idle = waited();
        return idle ? idle : allocate(address, bytes);
    });
}
ENTRY cuMemFreeAsync(u64 address, Stream*) {
    return entered([&] {
        const Result idle = waited();
        return idle ? idle : release(address);
    });
}
ENTRY cuMemGetInfo_v2(size_t* left, size_t* total) {
    return entered([&] {
        *total = state().settings.memory;
        *left = *total - std::min<size_t>(*total, memory::used());
        return SUCCESS;
    });
}
ENTRY cuMemHostAlloc(void** memory, size_t bytes, u32) {
    return entered([&] {
        *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        if (!*memory) return OUT_OF_MEMORY;
        memory::map_host(address_of(*memory), bytes);
        return SUCCESS;
    });
}
ENTRY cuMemAllocHost_v2(void** memory, size_t bytes) { return cuMemHostAlloc(memory, bytes, 0); }
ENTRY cuMemFreeHost(void* memory) {
    return entered([&] {
        if (!memory::unmap_host(address_of(memory))) return INVALID_VALUE;
        std::free(memory);
        return SUCCESS;
    });
}
ENTRY cuMemHostRegister_v2(void* memory, size_t bytes, u32) {
    return entered([&] {
        memory::map_host(address_of(memory), bytes);
        return SUCCESS;
    });
}
ENTRY cuMemHostUnregister(void* memory) {
    return entered([&] { return memory::unmap_host(address_of(memory)) ? SUCCESS : INVALID_VALUE; });
}
ENTRY cuMemHostGetDevicePointer_v2(u64* address, void* memory, u32) {
    *address = address_of(memory);
    return entered([&] { return memory::holds(*address, 1) ? SUCCESS : INVALID_VALUE; });
}

ENTRY cuDeviceGetDefaultMemPool(void** pool, int) {
    *pool = &pool_handle;
    return SUCCESS;
}
ENTRY cuDeviceGetMemPool(void** pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
ENTRY cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
ENTRY cuMemPoolTrimTo(void*, size_t) { return SUCCESS; }

// Copies and fills. Those without a stream wait for it, which is refused during a capture.

namespace {

Result now(Work work) {
    return entered([&] {
        const Result idle = waited();
        return idle ? idle : perform(work);
    });
}

Result later(Stream* stream, Work work) {
    return entered([&] { return submit(stream, std::move(work)); });
}

Work to_device(u64 to, const void* from, size_t bytes) { return CopyWork{to, address_of(from), bytes, true, false}; }
Work to_host(void* to, u64 from, size_t bytes) { return CopyWork{address_of(to), from, bytes, false, true}; }
Work on_device(u64 to, u64 from, size_t bytes) { return CopyWork{to, from, bytes, true, true}; }

} // namespace

ENTRY cuMemcpyHtoD_v2(u64 to, const void* from, size_t bytes) { return now(to_device(to, from, bytes)); }
ENTRY cuMemcpyDtoH_v2(void* to, u64 from, size_t bytes) { return now(to_host(to, from, bytes)); }
ENTRY cuMemcpyDtoD_v2(u64 to, u64 from, size_t bytes) { return now(on_device(to, from, bytes)); }
ENTRY cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, Stream* stream) {
    return later(stream, to_device(to, from, bytes));
}
ENTRY cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, Stream* stream) {
    return later(stream, to_host(to, from, bytes));
}
ENTRY cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, Stream* stream) {
    return later(stream, on_device(to, from, bytes));
}
ENTRY cuMemcpyAsync(u64 to, u64 from, size_t bytes, Stream* stream) {
    return later(stream, CopyWork{to, from, bytes, false, false});
}
ENTRY cuMemsetD8_v2(u64 to, u8 value, size_t count) { return now(FillWork{to, value, 1, count}); }
ENTRY cuMemsetD32_v2(u64 to, u32 value, size_t count) { return now(FillWork{to, value, 4, count}); }
ENTRY cuMemsetD8Async(u64 to, u8 value, size_t count, Stream* stream) {
    return later(stream, FillWork{to, value, 1, count});
}
ENTRY cuMemsetD32Async(u64 to, u32 value, size_t count, Stream* stream) {
    return later(stream, FillWork{to, value, 4, count});
}

// Modules: whatever the image, it holds all kernels that this library was built with.

ENTRY cuModuleLoadData(void** module, const void* image) {
    *module = &module_handle;
    return entered([&] { return image ? SUCCESS : INVALID_VALUE; });
}
ENTRY cuModuleLoadDataEx(void** module, const void* image, u32, int*, void**) {
    return cuModuleLoadData(module, image);
}
ENTRY cuModuleUnload(void*) { return SUCCESS; }
ENTRY cuModuleGetFunction(void** function, void*, const char* name) {
    return entered([&] {
        const auto found = kernels().find(name);
        if (found == kernels().end()) return NOT_FOUND;
        *function = found->second;
        return SUCCESS;
    });
}

ENTRY cuFuncGetAttribute(int* value, int attribute, const void* function) {
    return entered([&] {
        const auto& kernel = *static_cast<const emulated::Kernel*>(function);
        const std::map<int, int> values = {
            {0, kernel.max_threads}, // threads
            {4, 32},                 // registers
            {5, 80}, {6, 86},        // versions of the code
            {8, kernel.dynamic_max}, // dynamic shared memory
        };
        const auto found = values.find(attribute);
        *value = found == values.end() ? 0 : found->second;
        return SUCCESS;
    });
}
ENTRY cuFuncSetAttribute(void* function, int attribute, int value) {
    constexpr int DYNAMIC_SHARED_BYTES_MAX = 8;
    return entered([&] {
        if (attribute != DYNAMIC_SHARED_BYTES_MAX) return SUCCESS;
        if (value < 0 || value > static_cast<int>(emulated::DYNAMIC_BYTES_MAX)) return INVALID_VALUE;
        static_cast<emulated::Kernel*>(function)->dynamic_max = static_cast<u32>(value);
        return SUCCESS;
    });
}
ENTRY cuFuncSetCacheConfig(void*, int) { return SUCCESS; }

ENTRY cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* count, const void*, int threads, size_t, u32) {
    *count = threads > 0 ? std::max(1, 1536 / threads) : 0;
    return threads > 0 ? SUCCESS : INVALID_VALUE;
}
ENTRY cuOccupancyMaxActiveBlocksPerMultiprocessor(int* count, const void* function, int threads, size_t bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, function, threads, bytes, 0);
}

// Launches.

ENTRY cuLaunchKernel(const void* function, u32 blocks_x, u32 blocks_y, u32 blocks_z, u32 threads_x, u32 threads_y,
                     u32 threads_z, u32 dynamic_bytes, Stream* stream, void** arguments, void** extra) {
    return entered([&] {
        LaunchWork work;
        const Shape shape{blocks_x, blocks_y, blocks_z, threads_x, threads_y, threads_z, dynamic_bytes};
        const Result made = make_launch(function, shape, arguments, extra, &work);
        return made ? made : submit(stream, std::move(work));
    });
}

struct LaunchConfig {
    Shape shape;
    Stream* stream;
    void* attributes;
    u32 attribute_count;
};
ENTRY cuLaunchKernelEx(const LaunchConfig* config, const void* function, void** arguments, void** extra) {
    return entered([&] {
        LaunchWork work;
        const Result made = make_launch(function, config->shape, arguments, extra, &work);
        return made ? made : submit(config->stream, std::move(work));
    });
}

ENTRY cuLaunchHostFunc(Stream* stream, void (*call)(void*), void* argument) {
    return later(stream, HostWork{call, argument});
}
