// The first half of `device.cuh` for a host C++ compiler. Included by it and by nothing else, after its types.
//
// A thread of a block is a fibre (block.h). What a warp does together is a meeting: each lane lays down what it brings,
// the lane that comes last does the work for all of them, and all go on.
#pragma once

namespace emulated {

struct Index {
    u32 x, y, z;
};

// The thread that runs now, its block and its grid.
struct Thread {
    Index index;
};
extern Thread* thread;
extern Index block, threads, blocks;

// What the lanes of one warp do together; `brought[lane]` is null for a lane that has returned or never was.
using Meeting = void (*)(void* const (&brought)[32]);
void meet(Meeting meeting, void* brought);
void meet_block();

struct Exchange {
    u32 value, from, result;
};
void exchange(void* const (&brought)[32]);

template <class T> inline T exchanged(T value, u32 from) {
    static_assert(sizeof(T) == sizeof(u32), "an exchange is of 32 bits");
    Exchange e{0, from, 0};
    __builtin_memcpy(&e.value, &value, sizeof value);
    meet(exchange, &e);
    __builtin_memcpy(&value, &e.result, sizeof value);
    return value;
}

u32 lane();
u8* dynamic_shared();
void copy_later(void* shared, const void* global);
void end_group();
void copy_all_but(u32 groups);
void check_aligned(const void* p, u32 bytes);

// A kernel as the driver knows it.
struct Kernel {
    const char* name;
    u32 max_threads;
    // Calls the function with its arguments read through the pointers.
    void (*call)(void (*function)(), void* const* arguments);
    void (*function)();
    const u32* sizes; // of its parameters, in bytes
    u32 parameters;
    // The static shared memory of all kernels of its file.
    u8 *shared_begin, *shared_end;
    u32 dynamic_max = 48 << 10;
};
void add(Kernel* kernel);

template <u32... I> struct Indices {};
template <u32 N, u32... I> struct Count : Count<N - 1, N - 1, I...> {};
template <u32... I> struct Count<0, I...> {
    using Type = Indices<I...>;
};

template <class... P> struct Signature {
    static constexpr u32 sizes[sizeof...(P) + 1] = {sizeof(P)..., 0};
    template <u32... I> static void call_with(void (*f)(P...), void* const* arguments, Indices<I...>) {
        f(*static_cast<P*>(arguments[I])...);
    }
    static void call(void (*function)(), void* const* arguments) {
        using Count = typename Count<sizeof...(P)>::Type;
        call_with(reinterpret_cast<void (*)(P...)>(function), arguments, Count{});
    }
};

struct Registered {
    Kernel kernel;
    template <class... P>
    Registered(const char* name, u32 max_threads, void (*f)(P...), u8* shared_begin, u8* shared_end)
        : kernel{name, max_threads, Signature<P...>::call, reinterpret_cast<void (*)()>(f), Signature<P...>::sizes,
                 sizeof...(P), shared_begin, shared_end} {
        add(&kernel);
    }
};

// What `mma_*` brings to the meeting: the fragments stay where the lane has them.
struct Fragments {
    void* c;
    const u32 *a, *b;
};
void multiply_u8s8_k32(void* const (&brought)[32]);
void multiply_u8s8_k16(void* const (&brought)[32]);
void multiply_bf16_k16(void* const (&brought)[32]);
inline void nothing(void* const (&)[32]) {}

} // namespace emulated

#define threadIdx (emulated::thread->index)
#define blockIdx (emulated::block)
#define blockDim (emulated::threads)
#define gridDim (emulated::blocks)

#define DEVICE inline __attribute__((unused))
// One block runs at a time, so what its threads share may be static. The section is named by the build.
#define SHARED static __attribute__((section(EMULATED_SHARED), aligned(16)))
#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(emulated::dynamic_shared())
// The build finds kernels by the constant.
#define KERNEL(max_threads, name)                                                                                      \
    constexpr u32 emulated_threads_##name = max_threads;                                                              \
    static void name

extern "C" float sqrtf(float) noexcept;
extern "C" float fabsf(float) noexcept;
extern "C" float rintf(float) noexcept;

DEVICE f32 fma(f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); }
DEVICE u32 as_u32(f32 x) {
    u32 bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}
DEVICE f32 as_f32(u32 bits) {
    f32 x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

DEVICE void sync_block() { emulated::meet_block(); }
DEVICE void sync_warp() {
    u32 brought;
    emulated::meet(emulated::nothing, &brought);
}
DEVICE void fence() {}
DEVICE u32 atomic_add(u32* p, u32 v) {
    const u32 before = *p;
    *p = before + v;
    return before;
}

template <class T> DEVICE T shuffle_xor(T v, u32 mask) { return emulated::exchanged(v, emulated::lane() ^ mask); }
template <class T> DEVICE T shuffle(T v, u32 lane) { return emulated::exchanged(v, lane & 31); }
template <class T> DEVICE T shuffle_down(T v, u32 d) {
    const u32 lane = emulated::lane();
    return emulated::exchanged(v, lane + d < 32 ? lane + d : lane);
}

DEVICE i32 dot4_u8s8(u32 a, u32 b, i32 c) {
    u32 sum = static_cast<u32>(c);
    for (u32 shift = 0; shift < 32; shift += 8) {
        sum += static_cast<u32>(static_cast<u8>(a >> shift) * static_cast<i8>(b >> shift));
    }
    return static_cast<i32>(sum);
}
DEVICE i32 dot4_s8s8(u32 a, u32 b, i32 c) {
    u32 sum = static_cast<u32>(c);
    for (u32 shift = 0; shift < 32; shift += 8) {
        sum += static_cast<u32>(static_cast<i8>(a >> shift) * static_cast<i8>(b >> shift));
    }
    return static_cast<i32>(sum);
}

DEVICE u32 pick_bytes(u32 low, u32 high, u32 selector) {
    const u64 bytes = low | static_cast<u64>(high) << 32;
    u32 picked = 0;
    for (u32 i = 0; i < 4; i++) picked |= static_cast<u32>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return picked;
}

DEVICE void mma_u8s8_k32(i32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::Fragments brought{c, a, b};
    emulated::meet(emulated::multiply_u8s8_k32, &brought);
}
DEVICE void mma_u8s8_k16(i32 (&c)[4], const u32 (&a)[2], u32 b) {
    emulated::Fragments brought{c, a, &b};
    emulated::meet(emulated::multiply_u8s8_k16, &brought);
}
DEVICE void mma_bf16_k16(f32 (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::Fragments brought{c, a, b};
    emulated::meet(emulated::multiply_bf16_k16, &brought);
}

DEVICE u32 min(u32 a, u32 b) { return b < a ? b : a; }
DEVICE u32 max(u32 a, u32 b) { return a < b ? b : a; }
DEVICE i32 min(i32 a, i32 b) { return b < a ? b : a; }
DEVICE i32 max(i32 a, i32 b) { return a < b ? b : a; }

DEVICE void copy_async16(void* shared, const void* global) { emulated::copy_later(shared, global); }
DEVICE void copy_async_commit() { emulated::end_group(); }
template <u32 N> DEVICE void copy_async_wait() { emulated::copy_all_but(N); }

template <class T> DEVICE T load_once(const T* p) {
    static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "size");
    emulated::check_aligned(p, sizeof(T));
    return *p;
}

DEVICE f32 convert_half(u16 bits) {
    const u32 sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return as_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    // The exponent's bias differs by 112; the product is exact and normalises what was subnormal.
    return as_f32(sign | as_u32(as_f32(magnitude << 13) * 0x1p112f));
}
// Not of NaN, which `device.cuh` deals with.
DEVICE u16 convert_to_half(f32 x) {
    const u32 bits = as_u32(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    u32 half = 0x7c00;
    if (magnitude < 0x38800000u) {
        // Below the normal numbers the unit is 2^-24, that of a float from 0.5 on: the sum rounds to it.
        half = as_u32(as_f32(magnitude) + 0.5f) - as_u32(0.5f);
    } else if (magnitude < 0x47800000u) {
        half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    return static_cast<u16>(sign | half);
}
