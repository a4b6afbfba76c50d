// CUDA's grids, blocks and warps on the processor, for kernels that keep the rules of common.cuh.
//
// A block's threads are fibres with stacks of their own, run one after the other up to the next
// collective; blocks run one after the other. A kernel whose result depends on the order of threads
// between two collectives has a race: run it forward and in reverse and compare. Shared memory holds
// NaN when a block starts.

#define EMULATOR 1
#define _XOPEN_SOURCE 700
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define KERNEL(name) static void name
#define SHARED unsigned char* shared = emulator::shared
#define INLINE static inline
#define __align__(n) alignas(n)
#define __restrict__ __restrict

namespace emulator {

struct Dim {
    unsigned x, y, z;
};

enum State { READY, AT_BLOCK, AT_WARP, DONE };

struct Fibre {
    ucontext_t start;
    jmp_buf at;
    bool started;
    State state;
    Dim thread;
    int turn;
    std::vector<char> stack;
};

static const unsigned LANES = 32;
static const size_t STACK = 256 << 10;
static const size_t SLOT = 256;

static Fibre* current;
static Dim block, blocks, threads;
static unsigned char* shared;
static jmp_buf scheduler;
static std::vector<Fibre> fibres;
static std::vector<unsigned char> slots;
static void (*body)(void**);
static void** arguments;

static void finish(State state) {
    current->state = state;
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

static void begin() {
    body(arguments);
    current->state = DONE;
    _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void resume(Fibre* fibre) {
    current = fibre;
    if (_setjmp(scheduler)) return;
    if (fibre->started) _longjmp(fibre->at, 1);
    fibre->started = true;
    setcontext(&fibre->start);
}

// Lets those go on that all wait at one collective: whether anybody may.
static const char* release(unsigned from, unsigned to, State at) {
    unsigned waiting = 0, done = 0;
    for (unsigned i = from; i < to; i++) {
        waiting += fibres[i].state == at;
        done += fibres[i].state == DONE;
    }
    if (waiting == 0) return "";
    if (waiting + done < to - from) return "";
    if (done) return "a thread ended before a collective that others reached";
    for (unsigned i = from; i < to; i++) fibres[i].state = READY;
    return nullptr;
}

__attribute__((noinline)) static void prepare(Fibre* fibre, unsigned index) {
    fibre->started = false;
    fibre->state = READY;
    fibre->turn = 0;
    fibre->thread = Dim{index, 0, 0};
    fibre->stack.resize(STACK);
    getcontext(&fibre->start);
    fibre->start.uc_stack.ss_sp = fibre->stack.data();
    fibre->start.uc_stack.ss_size = STACK;
    fibre->start.uc_link = nullptr;
    makecontext(&fibre->start, begin, 0);
}

static const char* run_block(bool reversed) {
    unsigned count = fibres.size();
    for (unsigned i = 0; i < count; i++) prepare(&fibres[i], i);
    for (;;) {
        bool done = true, moved = false;
        for (unsigned i = 0; i < count; i++) {
            Fibre* fibre = &fibres[reversed ? count - 1 - i : i];
            if (fibre->state != READY) continue;
            resume(fibre);
            moved = true;
        }
        for (unsigned i = 0; i < count; i++) done = done && fibres[i].state == DONE;
        if (done) return nullptr;
        for (unsigned warp = 0; warp < count; warp += LANES) {
            const char* wrong = release(warp, warp + LANES, AT_WARP);
            if (!wrong) moved = true;
            else if (*wrong) return wrong;
        }
        const char* wrong = release(0, count, AT_BLOCK);
        if (!wrong) moved = true;
        else if (*wrong) return wrong;
        if (!moved) return "threads wait at different collectives";
    }
}

// Runs a kernel: nothing, or what is wrong with it.
static const char* run(
    void (*kernel)(void**), const unsigned grid[3], unsigned count, size_t bytes, void** values, bool reversed
) {
    if (count == 0 || count % LANES != 0 || count > 1024) return "a block is 1 to 32 whole warps";
    body = kernel;
    arguments = values;
    blocks = Dim{grid[0], grid[1], grid[2]};
    threads = Dim{count, 1, 1};
    fibres.resize(count);
    slots.resize(2 * SLOT * count);
    std::vector<unsigned char> memory(bytes + 64);
    shared = (unsigned char*)(((uintptr_t)memory.data() + 15) / 16 * 16);
    unsigned char guard = 0xa5;
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                memset(shared, 0xff, bytes);
                memset(shared + bytes, guard, 32);
                block = Dim{x, y, z};
                if (const char* wrong = run_block(reversed)) return wrong;
                for (int i = 0; i < 32; i++)
                    if (shared[bytes + i] != guard) return "a write behind the shared memory";
            }
    return nullptr;
}

// What every lane of the warp has to say. Good until the next but one collective.
template <class T>
static const T* lanes(const T& mine) {
    static_assert(sizeof(T) <= SLOT, "a lane says at most so much");
    unsigned lane = current->thread.x % LANES, warp = current->thread.x / LANES;
    T* all = (T*)&slots[(2 * warp + current->turn) * LANES * SLOT];
    current->turn ^= 1;
    all[lane] = mine;
    finish(AT_WARP);
    return all;
}

template <class... P, size_t... I>
static void call(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
    kernel(*(typename std::decay<P>::type*)values[I]...);
}

template <class... P>
static void call(void (*kernel)(P...), void** values) {
    call(kernel, values, std::index_sequence_for<P...>{});
}

// The bytes of each of a kernel's parameters, and 0 behind them.
template <class... P>
static const size_t* sizes(void (*)(P...)) {
    static const size_t all[] = {sizeof(typename std::decay<P>::type)..., 0};
    return all;
}

}  // namespace emulator

#define EMULATOR_EXPORT(name)                                                                       \
    extern "C" const size_t* emulator_sizes_##name() { return emulator::sizes(name); }             \
    extern "C" const char* emulator_##name(                                                         \
        const unsigned* grid, unsigned count, size_t bytes, void** values, int reversed         \
    ) {                                                                                         \
        return emulator::run([](void** v) { emulator::call(name, v); }, grid, count, bytes, values,     \
                         reversed);                                                             \
    }

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::block)
#define blockDim (emulator::threads)
#define gridDim (emulator::blocks)

static inline void __syncthreads() { emulator::finish(emulator::AT_BLOCK); }
static inline void __syncwarp(unsigned = ~0u) { emulator::finish(emulator::AT_WARP); }

template <class T>
static inline T __shfl_xor_sync(unsigned, T x, int mask) {
    return emulator::lanes(x)[threadIdx.x % 32 ^ mask];
}
template <class T>
static inline T __shfl_sync(unsigned, T x, int lane) {
    return emulator::lanes(x)[lane % 32];
}
template <class T>
static inline T __shfl_up_sync(unsigned, T x, unsigned by) {
    unsigned lane = threadIdx.x % 32;
    return emulator::lanes(x)[lane < by ? lane : lane - by];
}
static inline unsigned __ballot_sync(unsigned, int yes) {
    const int* all = emulator::lanes(yes);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++) bits |= (unsigned)(all[lane] != 0) << lane;
    return bits;
}

static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static inline double __longlong_as_double(long long x) { double y; memcpy(&y, &x, 8); return y; }
static inline long long __double_as_longlong(double x) { long long y; memcpy(&y, &x, 8); return y; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
