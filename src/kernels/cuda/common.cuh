// What all kernels share: element types, sums over warps and blocks, wide loads.
//
// The text has no includes, so that NVRTC compiles it anywhere. With EMULATOR defined it is C++ for the
// processor: emulator.h then gives threads, blocks and the functions of CUDA's own that are used here.
//
// Rules that keep it so: a kernel is KERNEL(name)(..), its integers are i64 and its numbers float or
// double; shared memory is SHARED alone; blocks are of whole warps; every thread of a block reaches
// every collective. No atomics on floating-point numbers: results do not depend on scheduling.

#ifndef EMULATOR
#define KERNEL(name) extern "C" __global__ void name
#define SHARED extern __shared__ __align__(16) unsigned char shared[]
#define INLINE __device__ __forceinline__
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 {
    u16 bits;
};

INLINE float wide(float x) { return x; }
INLINE float wide(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// To the nearest, ties to even.
INLINE bf16 nearest(float x) {
    bf16 y;
#ifdef EMULATOR
    u32 bits = __float_as_uint(x);
    y.bits = x != x ? (u16)(bits >> 16 | 64) : (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
    return y;
}

// Two of them, the first in the low half.
INLINE u32 nearest_two(float low, float high) {
#ifdef EMULATOR
    return (u32)nearest(low).bits | (u32)nearest(high).bits << 16;
#else
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
#endif
}

INLINE void store(float* to, float x) { *to = x; }
INLINE void store(bf16* to, float x) { *to = nearest(x); }

template <class T, int N>
struct __align__(sizeof(T) * N) Pack {
    T x[N];
};

// Elements that a thread takes at once, from memory that may begin anywhere.
const int PACK = 8;

// The elements at `at`, zeros behind the last of `left`.
template <class T>
INLINE void load(float (&x)[PACK], const T* at, i64 left) {
    if (left >= PACK && (u64)at % (sizeof(T) * PACK) == 0) {
        Pack<T, PACK> pack = *(const Pack<T, PACK>*)at;
        for (int k = 0; k < PACK; k++) x[k] = wide(pack.x[k]);
    } else {
        for (int k = 0; k < PACK; k++) x[k] = k < left ? wide(at[k]) : 0.0f;
    }
}

// 16 bytes of global memory. Written out, as a compiler may part what it could store at once.
INLINE void store_words(void* at, u32 a, u32 b, u32 c, u32 d) {
#ifdef EMULATOR
    u32 words[4] = {a, b, c, d};
    memcpy(at, words, 16);
#else
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "l"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
#endif
}

INLINE void store_aligned(float* at, const float (&x)[PACK]) {
    for (int i = 0; i < PACK; i += 4) {
        store_words(at + i, __float_as_uint(x[i]), __float_as_uint(x[i + 1]), __float_as_uint(x[i + 2]),
                    __float_as_uint(x[i + 3]));
    }
}
INLINE void store_aligned(bf16* at, const float (&x)[PACK]) {
    store_words(at, nearest_two(x[0], x[1]), nearest_two(x[2], x[3]), nearest_two(x[4], x[5]),
                nearest_two(x[6], x[7]));
}

template <class T>
INLINE void store(T* at, const float (&x)[PACK], i64 left) {
    if (left >= PACK && (u64)at % (sizeof(T) * PACK) == 0) {
        store_aligned(at, x);
    } else {
        for (int k = 0; k < PACK && k < left; k++) store(at + k, x[k]);
    }
}

INLINE i64 thread_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
INLINE i64 thread_count() { return (i64)gridDim.x * blockDim.x; }

template <class T>
INLINE T warp_sum(T x) {
    for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
    return x;
}

INLINE float warp_max(float x) {
    for (int mask = 16; mask > 0; mask /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = other > x ? other : x;
    }
    return x;
}

// The sum over a block's threads, in all of them; scratch holds an element per warp. The order of
// additions is fixed.
template <class T>
INLINE T block_sum(T x, T* scratch) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) total += scratch[warp];
    return total;
}

INLINE float block_max(float x, float* scratch) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float most = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) {
        most = scratch[warp] > most ? scratch[warp] : most;
    }
    return most;
}
