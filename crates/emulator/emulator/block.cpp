#include "block.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

// Keeps the registers that a call must keep on the stack that runs, stores where that stack ends in *save, and goes on
// with the stack that ends at `load`.
extern "C" void emulated_swap_stacks(void** save, void* load);

#if defined(__x86_64__)
__asm__(R"(
.text
.hidden emulated_swap_stacks
.globl emulated_swap_stacks
emulated_swap_stacks:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
#elif defined(__aarch64__)
__asm__(R"(
.text
.hidden emulated_swap_stacks
.globl emulated_swap_stacks
emulated_swap_stacks:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#else
#error "switching stacks is written for x86-64 and aarch64"
#endif

namespace emulated {

Thread* thread;
Index block, threads, blocks;

namespace {

constexpr size_t STACK_BYTES = 64 << 10;
constexpr u32 WARP = 32;
// Fills memory whose value is undefined: a NaN as f32, f16 and bf16, -1 as an integer.
constexpr int UNDEFINED = 0xff;
// What follows the dynamic shared memory of a launch, and must still be there after each block.
constexpr u32 FENCE_BYTES = 256;
constexpr u8 FENCE = 0xc5;
// A file with more static shared memory than this gets it refilled per launch, not per block.
constexpr long REFILLED_MAX = 64 << 10;

struct Copy {
    void* to;
    const void* from;
    u32 group;
};

struct Fibre : Thread {
    u32 number; // within the block
    void* stack_end;
    std::vector<Copy> copies;
    u32 group;
};

struct Warp {
    // Sets of lanes, a bit each: not returned, able to run, at `meeting`, at the block's barrier.
    u32 alive, ready, arrived, waiting;
    Meeting meeting;
    void* brought[WARP];
};

std::unique_ptr<Fibre[]> fibres;
u8* stacks;
size_t stack_stride;
Warp warps[THREADS_MAX / WARP];
u32 warp_count, alive, waiting;
const Launch* launch;
std::string trouble;
void* host_stack;
u64 chance;
alignas(128) u8 dynamic[DYNAMIC_BYTES_MAX + FENCE_BYTES];

Fibre& current() { return *static_cast<Fibre*>(thread); }

std::string where(const Fibre& fibre) {
    const auto print = [](Index i) { return std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z); };
    return std::string("kernel ") + launch->kernel->name + ", block " + print(block) + ", thread " + print(fibre.index);
}

// Gives up the launch. The stacks of its fibres hold nothing that must be destroyed.
[[noreturn]] void give_up(const std::string& what) {
    trouble = where(current()) + ": " + what;
    void* left;
    emulated_swap_stacks(&left, host_stack);
    __builtin_unreachable();
}

u64 random() {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    return chance ^= chance << 17;
}

// A member of a set that is not empty: the next one after `last` in a circle, or any.
inline u32 pick(u32 set, u32 last) {
    const u32 first = (chance ? static_cast<u32>(random()) : last + 1) % 32;
    const u32 turned = first ? set >> first | set << (32 - first) : set;
    return (first + static_cast<u32>(__builtin_ctz(turned))) % 32;
}

std::string stuck() {
    for (u32 w = 0; w < warp_count; w++) {
        const Warp& warp = warps[w];
        if (!warp.arrived) continue;
        return "warp " + std::to_string(w) + " waits in an exchange, product or sync_warp that only " +
               std::to_string(__builtin_popcount(warp.arrived)) + " of its " +
               std::to_string(__builtin_popcount(warp.alive)) + " lanes have reached";
    }
    return "sync_block was reached by " + std::to_string(waiting) + " of " + std::to_string(alive) + " threads";
}

// The fibre to run when no lane of the current one's warp can, or when the order is shuffled.
Fibre& elsewhere() {
    u32 ready = 0;
    for (u32 w = 0; w < warp_count; w++) ready |= (warps[w].ready ? 1u : 0u) << w;
    if (!ready) give_up(stuck());
    const u32 w = pick(ready, current().number / WARP);
    return fibres[w * WARP + pick(warps[w].ready, WARP - 1)];
}

// Goes on with another fibre: the next lane of the warp that can run, else another warp's.
inline void leave() {
    Fibre& left = current();
    const u32 warp = left.number / WARP, ready = warps[warp].ready;
    const bool wander = chance && random() % 8 == 0;
    Fibre& fibre = ready && !wander ? fibres[warp * WARP + pick(ready, left.number % WARP)] : elsewhere();
    thread = &fibre;
    emulated_swap_stacks(&left.stack_end, fibre.stack_end);
}

void finish(Warp& warp) {
    warp.meeting(warp.brought);
    warp.ready |= warp.arrived;
    warp.arrived = 0;
}

void release_block() {
    for (u32 w = 0; w < warp_count; w++) {
        warps[w].ready |= warps[w].waiting;
        warps[w].waiting = 0;
    }
    waiting = 0;
}

// Where a fibre starts and ends. Threads that have returned are waited for by nobody.
void live() {
    launch->kernel->call(launch->kernel->function, launch->arguments);
    Warp& warp = warps[current().number / WARP];
    const u32 lane = current().number % WARP;
    warp.alive &= ~(1u << lane);
    warp.ready &= ~(1u << lane);
    warp.brought[lane] = nullptr;
    alive--;
    if (warp.arrived && warp.arrived == warp.alive) finish(warp);
    if (waiting && waiting == alive) release_block();
    if (alive) leave();
    void* left;
    emulated_swap_stacks(&left, host_stack);
    __builtin_unreachable();
}

// What `emulated_swap_stacks` expects to find on the stack of a fibre that has not started.
void* fresh_stack(u32 number) {
    u8* top = stacks + (number + 1) * stack_stride;
    // Equal offsets in all stacks would compete for the same lines of the cache.
    top -= number % 16 * 256;
    void** end = reinterpret_cast<void**>(top);
#if defined(__x86_64__)
    end -= 8;
    std::memset(end, 0, 8 * sizeof *end);
    end[6] = reinterpret_cast<void*>(live);
#else
    end -= 20;
    std::memset(end, 0, 20 * sizeof *end);
    end[11] = reinterpret_cast<void*>(live);
#endif
    return end;
}

// An access outside all memory would end the process without a word about who did it.
struct sigaction handler_before;
void on_bad_access(int signal, siginfo_t* info, void*) {
    if (launch && thread) {
        std::fprintf(stderr, "emulator: %s: access to %p, which is no memory, or its stack is full\n",
                     where(current()).c_str(), info->si_addr);
    }
    // Returning repeats the access, under the handler that was there before.
    sigaction(signal, &handler_before, nullptr);
}

void prepare() {
    if (fibres) return;
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    stack_stride = STACK_BYTES + page;
    void* mapped = mmap(nullptr, THREADS_MAX * stack_stride, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        std::perror("emulator: stacks");
        std::abort();
    }
    stacks = static_cast<u8*>(mapped);
    for (u32 i = 0; i < THREADS_MAX; i++) mprotect(stacks + i * stack_stride, page, PROT_NONE);
    fibres = std::make_unique<Fibre[]>(THREADS_MAX);
    struct sigaction action {};
    action.sa_sigaction = on_bad_access;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &handler_before);
}

void start_block() {
    const u32 count = threads.x * threads.y * threads.z;
    warp_count = (count + WARP - 1) / WARP;
    alive = count;
    waiting = 0;
    for (u32 w = 0; w < warp_count; w++) {
        const u32 lanes = count - w * WARP < WARP ? count - w * WARP : WARP;
        const u32 all = lanes == WARP ? ~0u : (1u << lanes) - 1;
        warps[w] = Warp{};
        warps[w].alive = warps[w].ready = all;
    }
    Index index{0, 0, 0};
    for (u32 i = 0; i < count; i++) {
        Fibre& fibre = fibres[i];
        fibre.index = index;
        fibre.number = i;
        fibre.copies.clear();
        fibre.group = 0;
        fibre.stack_end = fresh_stack(i);
        if (++index.x == threads.x) index.x = 0, index.y++;
        if (index.y == threads.y) index.y = 0, index.z++;
    }
    std::memset(dynamic, UNDEFINED, launch->dynamic_bytes);
}

bool fence_stands() {
    for (u32 i = 0; i < FENCE_BYTES; i++) {
        if (dynamic[launch->dynamic_bytes + i] != FENCE) return false;
    }
    return true;
}

void run_block() {
    start_block();
    const u32 first = chance ? pick((warp_count == 32 ? 0u : 1u << warp_count) - 1, 0) * WARP : 0;
    thread = &fibres[first];
    emulated_swap_stacks(&host_stack, fibres[first].stack_end);
    if (trouble.empty() && !fence_stands()) {
        trouble = where(fibres[0]) + ": the block wrote beyond its dynamic shared memory";
    }
}

} // namespace

std::string run(const Launch& asked) {
    prepare();
    launch = &asked;
    threads = asked.threads;
    blocks = asked.blocks;
    trouble.clear();
    // The multiplier only spreads small numbers over the 64 bits.
    chance = asked.seed * 0x9e3779b97f4a7c15u;
    std::memset(dynamic + asked.dynamic_bytes, FENCE, FENCE_BYTES);
    const long shared_bytes = asked.kernel->shared_end - asked.kernel->shared_begin;
    u64 done = 0;
    for (block.z = 0; block.z < blocks.z; block.z++) {
        for (block.y = 0; block.y < blocks.y; block.y++) {
            for (block.x = 0; block.x < blocks.x && trouble.empty(); block.x++) {
                if (shared_bytes && (done++ == 0 || shared_bytes <= REFILLED_MAX)) {
                    std::memset(asked.kernel->shared_begin, UNDEFINED, static_cast<size_t>(shared_bytes));
                }
                run_block();
            }
        }
    }
    launch = nullptr;
    thread = nullptr;
    return trouble;
}

u32 lane() { return current().number % WARP; }
u8* dynamic_shared() { return dynamic; }

void meet(Meeting meeting, void* brought) {
    Fibre& fibre = current();
    Warp& warp = warps[fibre.number / WARP];
    const u32 lane = fibre.number % WARP;
    if (warp.arrived && warp.meeting != meeting) {
        give_up("its warp diverged: other lanes are in another kind of exchange or product");
    }
    warp.meeting = meeting;
    warp.brought[lane] = brought;
    warp.arrived |= 1u << lane;
    if (warp.arrived == warp.alive) return finish(warp);
    warp.ready &= ~(1u << lane);
    leave();
}

void meet_block() {
    Warp& warp = warps[current().number / WARP];
    const u32 bit = 1u << current().number % WARP;
    if (++waiting == alive) return release_block();
    warp.waiting |= bit;
    warp.ready &= ~bit;
    leave();
}

void check_aligned(const void* p, u32 bytes) {
    if (reinterpret_cast<size_t>(p) % bytes) give_up("a load or copy of " + std::to_string(bytes) + " bytes is not aligned to them");
}

// The bytes arrive when they are waited for and not before; until then the place holds what must not be read.
void copy_later(void* shared, const void* global) {
    check_aligned(shared, 16);
    check_aligned(global, 16);
    std::memset(shared, UNDEFINED, 16);
    current().copies.push_back({shared, global, current().group});
}

void end_group() { current().group++; }

void copy_all_but(u32 groups) {
    Fibre& fibre = current();
    size_t kept = 0;
    for (const Copy& copy : fibre.copies) {
        if (copy.group + groups < fibre.group) {
            std::memcpy(copy.to, copy.from, 16);
        } else {
            fibre.copies[kept++] = copy;
        }
    }
    fibre.copies.resize(kept);
}

} // namespace emulated
