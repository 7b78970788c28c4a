// The grid: blocks run one after another, the threads of a block are fibers that run until they meet a barrier or a
// warp collective. `__shared__` is a plain static, refilled with 0xFF (NaN, -1) for each block.
//
// What is checked besides the values: deadlock and barrier divergence; warp collectives entered by other lanes than the
// mask names; order dependence (EMULATOR_SCHEDULE=forward|reverse|random:SEED must give one answer, between blocks too);
// shared memory read before it is written; with sanitizers, bounds and data races.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "fibers.hpp"

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
#define __shared__ static __attribute__((section("emu_shared")))
extern "C" {
extern char __start_emu_shared[] __attribute__((weak));
extern char __stop_emu_shared[] __attribute__((weak));
}

namespace emu {

enum class Wait : uint8_t { ready, block, warp, done };
struct AsyncCopy { void* target; const void* source; unsigned bytes, valid; };
// What a thread of a block needs of the system. All libraries of a process take it from one place (`ROOMS` in __init__.py): a stack costs two
// system calls, a fiber of TSan a megabyte to be cleared, and there may be only so many of both.
struct Room { char* stack; void* tsan; };
struct Fiber {
    Context context;
    Room* room = nullptr;
    uint3 thread{};
    unsigned lane = 0, warp = 0;
    Wait wait = Wait::ready;
    int line = 0;
    const char* what = "";
    std::vector<std::vector<AsyncCopy>> copy_groups;
    std::vector<AsyncCopy> open_copies;
    void* asan_fake_stack = nullptr;
};
// Two sync objects in turn: with one, a lane already at the next barrier would order one still leaving this barrier.
struct Group { uint32_t arrived = 0; unsigned phase = 0; char sync[2] = {}; };
struct Warp { Group groups[32]; void* payload[32]; };

struct State {
    Fiber* current = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Context main;
    uint3 block{};
    dim3 block_dim, grid_dim;
    unsigned threads = 0;
    unsigned arrived = 0, votes = 0, vote_result = 0, phase = 0;
    char barrier_sync[2] = {}, fence_sync = 0, start_sync = 0, kernel_sync = 0;
    char* dynamic = nullptr;
    size_t dynamic_bytes = 0;
    void (*body)(void*) = nullptr;
    void* body_argument = nullptr;
    const void* main_stack = nullptr;
    size_t main_stack_bytes = 0;
    void* tsan_main = nullptr;
};
inline State S;

EMU_PRIVATE inline void to_fiber(Fiber& fiber) {
    S.current = &fiber;
#ifdef EMU_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.room->stack, kStackBytes);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(fiber.room->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swap_context(S.main, fiber.context);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}
EMU_PRIVATE inline void to_main(bool dying = false) {
    Fiber& fiber = *S.current;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(dying ? nullptr : &fiber.asan_fake_stack, S.main_stack, S.main_stack_bytes);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(S.tsan_main, __tsan_switch_to_fiber_no_sync);
#endif
    swap_context(fiber.context, S.main);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fiber.asan_fake_stack, &S.main_stack, &S.main_stack_bytes);
#endif
    (void)dying;
}
EMU_PRIVATE inline void fiber_main() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &S.main_stack, &S.main_stack_bytes);
#endif
    acquire(&S.start_sync);
    S.body(S.body_argument);
    release(&S.kernel_sync);
    S.current->wait = Wait::done;
    S.current->what = "exit";
    to_main(true);
    die("a finished thread was resumed");
}

EMU_PRIVATE inline uint3 thread_index() { return S.current->thread; }
EMU_PRIVATE inline uint3 block_index() { return S.block; }
EMU_PRIVATE inline dim3 block_dim() { return S.block_dim; }
EMU_PRIVATE inline dim3 grid_dim() { return S.grid_dim; }
EMU_PRIVATE inline unsigned lane() { return S.current->lane; }
EMU_PRIVATE inline char* dynamic_shared() { return S.dynamic; }

// ------------------------------------------------------------------------------------------------ the block barrier
inline void finish_barrier() {  // every live thread has arrived
    int line = -1;
    for (auto& fiber : S.fibers) {
        if (fiber.wait != Wait::block) continue;
        if (line < 0) line = fiber.line;
        if (line != fiber.line)
            die("barrier divergence in block (%u,%u,%u): line %d and line %d", S.block.x, S.block.y, S.block.z, line, fiber.line);
        fiber.wait = Wait::ready;
    }
    S.vote_result = S.votes;
    S.votes = S.arrived = 0;
    S.phase ^= 1;
}
inline unsigned barrier(int line, unsigned vote, const char* what) {
    char* sync;
    {
        Quiet quiet;
        sync = &S.barrier_sync[S.phase];
        Fiber& fiber = *S.current;
        fiber.wait = Wait::block;
        fiber.line = line;
        fiber.what = what;
        S.votes += vote;
        ++S.arrived;
    }
    release(sync);
    to_main();
    acquire(sync);
    Quiet quiet;
    return S.vote_result;
}

// ------------------------------------------------------------------------------------------------ warp collectives
// The last lane of the mask to arrive carries out `act` for all; `orders` says whether memory is ordered by it
// (__syncwarp: yes; shuffles, votes and mma: no, as the CUDA guide says).
template <class Payload, class Act>
inline void collective(uint32_t mask, Payload& payload, Act act, int line, const char* what, bool orders) {
    bool wait = false;
    char* sync;
    {
        Quiet quiet;
        Fiber& me = *S.current;
        Warp& warp = S.warps[me.warp];
        if (!(mask >> me.lane & 1)) die("%s at line %d: lane %u calls it but is not in mask %08x", what, line, me.lane, mask);
        Group& group = warp.groups[__builtin_ctz(mask)];
        sync = &group.sync[group.phase];
        warp.payload[me.lane] = &payload;
        me.line = line;
        me.what = what;
        if (orders) release(sync);
        group.arrived |= 1u << me.lane;
        if ((group.arrived & mask) == mask) {
            for (unsigned lane = 0; lane < 32; ++lane) {
                if (!(mask >> lane & 1)) continue;
                const Fiber& other = S.fibers[me.warp * 32 + lane];
                if (other.line != line || strcmp(other.what, what))
                    die("warp divergence: lane %u is in %s at line %d, lane %u in %s at line %d", me.lane, what, line, lane, other.what, other.line);
            }
            group.arrived = 0;
            group.phase ^= 1;
            act(reinterpret_cast<Payload**>(warp.payload), mask);
            for (unsigned lane = 0; lane < 32; ++lane)
                if (mask >> lane & 1) S.fibers[me.warp * 32 + lane].wait = Wait::ready;
        } else {
            me.wait = Wait::warp;
            wait = true;
        }
    }
    if (wait) to_main();
    if (orders) acquire(sync);
}
template <class T> struct Shuffle { T value, result; unsigned source; };
template <class T> inline T shuffle(uint32_t mask, T value, unsigned source, int line, const char* what) {
    static_assert(std::is_trivially_copyable_v<T>);
    Shuffle<T> payload{value, value, source};
    collective(mask, payload, [](Shuffle<T>** lanes, uint32_t m) {
        for (unsigned lane = 0; lane < 32; ++lane) {
            if (!(m >> lane & 1)) continue;
            const unsigned from = lanes[lane]->source;
            if (!(m >> from & 1)) die("shuffle: lane %u reads lane %u, which is not in mask %08x", lane, from, m);
            lanes[lane]->result = lanes[from]->value;
        }
    }, line, what, false);
    return payload.result;
}
struct Vote { unsigned value, result; };
inline unsigned ballot(uint32_t mask, unsigned value, int line, const char* what) {
    Vote payload{value, 0};
    collective(mask, payload, [](Vote** lanes, uint32_t m) {
        unsigned bits = 0;
        for (unsigned lane = 0; lane < 32; ++lane)
            if (m >> lane & 1) bits |= (lanes[lane]->value ? 1u : 0u) << lane;
        for (unsigned lane = 0; lane < 32; ++lane)
            if (m >> lane & 1) lanes[lane]->result = bits;
    }, line, what, false);
    return payload.result;
}
inline void sync_warp(uint32_t mask, int line) {
    Vote nothing{0, 0};
    collective(mask, nothing, [](Vote**, uint32_t) {}, line, "__syncwarp", true);
}

// ------------------------------------------------------------------------------------------------ launch
// volatile: must not become memset, whose ASan interceptor would meet the red zones between shared variables
__attribute__((noinline, no_sanitize("address", "thread", "undefined"))) inline void poison(char* bytes, size_t count) {
    for (volatile char* p = bytes; count; --count) *p++ = char(0xFF);
}
inline void start_block() {
    S.arrived = S.votes = 0;
    for (auto& warp : S.warps) warp = Warp{};
    if (__start_emu_shared) poison(__start_emu_shared, size_t(__stop_emu_shared - __start_emu_shared));
    if (S.dynamic_bytes) poison(S.dynamic, S.dynamic_bytes);
    for (unsigned i = 0; i < S.threads; ++i) {
        Fiber& fiber = S.fibers[i];
        fiber.thread = {i % S.block_dim.x, i / S.block_dim.x % S.block_dim.y, i / (S.block_dim.x * S.block_dim.y)};
        fiber.lane = i & 31;
        fiber.warp = i >> 5;
        fiber.wait = Wait::ready;
        fiber.open_copies.clear();
        fiber.copy_groups.clear();
        make_context(fiber.context, fiber.room->stack, kStackBytes, fiber_main);
    }
    release(&S.start_sync);
}
inline void run_block(const std::vector<unsigned>& order) {
    start_block();
    for (unsigned done = 0; done != S.threads;) {
        bool ran = false;
        for (unsigned i : order)
            if (S.fibers[i].wait == Wait::ready) {
                to_fiber(S.fibers[i]);
                ran = true;
            }
        done = 0;
        for (auto& fiber : S.fibers) done += fiber.wait == Wait::done;
        if (S.arrived && S.arrived + done == S.threads) {
            finish_barrier();
            ran = true;
        }
        if (ran) continue;
        fprintf(stderr, "cuda emulator: deadlock in block (%u,%u,%u):\n", S.block.x, S.block.y, S.block.z);
        for (unsigned i = 0; i < S.threads; ++i)
            if (S.fibers[i].wait != Wait::done && S.fibers[i].lane % 8 == 0)
                fprintf(stderr, "  thread %u waits at %s, line %d\n", i, S.fibers[i].what, S.fibers[i].line);
        die("deadlock (a thread returned or diverged before a barrier)");
    }
    acquire(&S.kernel_sync);  // the next block reuses shared memory; races between blocks are the schedules' task
}

struct Schedule {
    bool reverse = false;
    uint64_t random = 0;
    std::vector<unsigned> order;
    explicit Schedule(unsigned threads) : order(threads) {
        const char* name = getenv("EMULATOR_SCHEDULE");
        const std::string mode = name ? name : "forward";
        reverse = mode == "reverse";
        if (mode.rfind("random:", 0) == 0) random = strtoull(mode.c_str() + 7, nullptr, 10) * 2 + 1;
        else if (!reverse && mode != "forward") die("EMULATOR_SCHEDULE=%s: forward, reverse or random:SEED", mode.c_str());
        for (unsigned i = 0; i < threads; ++i) order[i] = reverse ? threads - 1 - i : i;
    }
    void shuffle_threads() {
        if (!random) return;
        for (size_t k = order.size(); k > 1; --k) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[k - 1], order[(random >> 33) % k]);
        }
    }
};
inline void launch(dim3 grid, dim3 block, size_t dynamic_bytes, Room* rooms, void (*body)(void*), void* argument) {
    S.threads = block.x * block.y * block.z;
    S.block_dim = block;
    S.grid_dim = grid;
    S.body = body;
    S.body_argument = argument;
    S.dynamic_bytes = dynamic_bytes;
    if (S.threads == 0 || S.threads > 1024) die("a block of %u threads", S.threads);
    if (grid.y > 65535 || grid.z > 65535) die("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    if (dynamic_bytes > 227 * 1024) die("%zu bytes of dynamic shared memory", dynamic_bytes);
    void* dynamic = nullptr;  // of the exact size, so that ASan sees one byte too many
    if (dynamic_bytes && posix_memalign(&dynamic, 16, dynamic_bytes)) die("out of memory");
    S.dynamic = static_cast<char*>(dynamic);
    S.fibers.resize(S.threads);
    S.warps.assign((S.threads + 31) / 32, Warp{});
    for (unsigned i = 0; i < S.threads; ++i) {
        S.fibers[i].room = &rooms[i];
        if (!rooms[i].stack) rooms[i].stack = make_stack();
#ifdef EMU_TSAN
        if (!rooms[i].tsan) rooms[i].tsan = __tsan_create_fiber(0);
#endif
    }
#ifdef EMU_TSAN
    S.tsan_main = __tsan_get_current_fiber();
#endif
    Schedule schedule(S.threads);
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t b = 0; b < blocks; ++b) {
        const uint64_t i = schedule.reverse ? blocks - 1 - b : b;
        schedule.shuffle_threads();
        S.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / (uint64_t(grid.x) * grid.y))};
        run_block(schedule.order);
    }
    free(S.dynamic);
    S.dynamic = nullptr;
    S.current = nullptr;
}
template <class... A> struct Call { void (*kernel)(A...); void** arguments; };
template <class... A, size_t... I> inline void call(Call<A...>* c, std::index_sequence<I...>) {
    c->kernel(*static_cast<std::remove_reference_t<A>*>(c->arguments[I])...);
}
template <class... A>
inline void launch_kernel(void (*kernel)(A...), const unsigned* g, const unsigned* b, size_t dynamic_bytes, void** arguments, Room* rooms) {
    Call<A...> c{kernel, arguments};
    launch({g[0], g[1], g[2]}, {b[0], b[1], b[2]}, dynamic_bytes, rooms,
           [](void* p) { call(static_cast<Call<A...>*>(p), std::index_sequence_for<A...>{}); }, &c);
}
template <class... A> constexpr const char* signature(void (*)(A...)) { return __PRETTY_FUNCTION__; }

}  // namespace emu

// One exported entry per kernel, with the argument form of cuLaunchKernel, pointers to the arguments, and room for 1024 threads.
#define EMU_EXPORT(name, as)                                                                                             \
    extern "C" __attribute__((visibility("default"))) void emu_launch_##as(const unsigned* g, const unsigned* b,         \
                                                                           size_t bytes, void** arguments, void* rooms) { \
        emu::launch_kernel(&name, g, b, bytes, arguments, static_cast<emu::Room*>(rooms));                               \
    }                                                                                                                    \
    extern "C" __attribute__((visibility("default"))) const char* emu_signature_##as() { return emu::signature(&name); }
