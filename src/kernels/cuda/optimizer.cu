// Sums of squares, updates of Adam, RMSprop and Lion, and the bits of f32 weights beside bf16 ones.
// WEIGHTS: how weights are kept, one of the three below. MOMENT: the type of the moments.

template <class T>
INLINE Pack<T, PACK> get(const T* at, i64 left) {
    if (left >= PACK && (u64)at % (sizeof(T) * PACK) == 0) return *(const Pack<T, PACK>*)at;
    Pack<T, PACK> pack;
    for (int k = 0; k < PACK; k++) pack.x[k] = k < left ? at[k] : T();
    return pack;
}

template <class T>
INLINE void put(T* at, const Pack<T, PACK>& pack, i64 left) {
    if (left >= PACK && (u64)at % (sizeof(T) * PACK) == 0) {
        *(Pack<T, PACK>*)at = pack;
    } else {
        for (int k = 0; k < PACK && k < left; k++) at[k] = pack.x[k];
    }
}

// To the nearest, ties away from zero: what is left of x fits 16 bits with a sign. NaN is one NaN.
INLINE bf16 away(float x) {
    bf16 y;
    y.bits = x != x ? 0x7fc0 : (u16)((__float_as_uint(x) + 0x8000u) >> 16);
    return y;
}

// What x is more than y, its rounding, in units of x's last place.
INLINE short low_half(float x, bf16 y) {
    return x != x ? 0 : (short)(__float_as_uint(x) - ((u32)y.bits << 16));
}

INLINE float whole(bf16 high, short low) {
    return __uint_as_float(((u32)high.bits << 16) + (u32)(int)low);
}

// f32 weights.
struct Plain {
    float* master;
    bf16* weights;
    short* low;
};

// bf16 weights, rounded from f32 ones.
struct Master {
    float* master;
    bf16* weights;
    short* low;
};

// bf16 weights and what is left of f32 ones.
struct Split {
    float* master;
    bf16* weights;
    short* low;
};

INLINE void read(float (&x)[PACK], Plain from, i64 i, i64 left) { load(x, from.master + i, left); }
INLINE void read(float (&x)[PACK], Master from, i64 i, i64 left) { load(x, from.master + i, left); }
INLINE void read(float (&x)[PACK], Split from, i64 i, i64 left) {
    Pack<bf16, PACK> high = get(from.weights + i, left);
    Pack<short, PACK> low = get(from.low + i, left);
    for (int k = 0; k < PACK; k++) x[k] = whole(high.x[k], low.x[k]);
}

INLINE void write(Plain to, const float (&x)[PACK], i64 i, i64 left) { store(to.master + i, x, left); }
INLINE void write(Master to, const float (&x)[PACK], i64 i, i64 left) {
    Pack<bf16, PACK> high;
    for (int k = 0; k < PACK; k++) high.x[k] = away(x[k]);
    store(to.master + i, x, left);
    put(to.weights + i, high, left);
}
INLINE void write(Split to, const float (&x)[PACK], i64 i, i64 left) {
    Pack<bf16, PACK> high;
    Pack<short, PACK> low;
    for (int k = 0; k < PACK; k++) {
        high.x[k] = away(x[k]);
        low.x[k] = low_half(x[k], high.x[k]);
    }
    put(to.weights + i, high, left);
    put(to.low + i, low, left);
}

// 64 random bits of a place: the finisher of splitmix64 (Steele, Lea and Flood 2014).
INLINE u64 random_bits(u64 key, u64 place) {
    u64 z = key + place * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

// One of the two bf16 numbers around x, the nearer one more often, so that the mean is x. What is
// finite stays finite.
INLINE bf16 randomly(float x, u16 random) {
    u32 bits = __float_as_uint(x);
    bf16 y;
    if ((bits & 0x7f800000u) == 0x7f800000u) return away(x);
    y.bits = (u16)((bits + random) >> 16);
    if ((y.bits & 0x7fff) == 0x7f80) y.bits -= 1;
    return y;
}

// Moments: `which` of the two they are tells their random bits apart.
INLINE void keep(float* at, const float (&x)[PACK], i64, i64 left, u64, int) { store(at, x, left); }
INLINE void keep(bf16* at, const float (&x)[PACK], i64 i, i64 left, u64 key, int which) {
    Pack<bf16, PACK> pack;
    for (int k = 0; k < PACK; k += 2) {
        u64 random = random_bits(key, (u64)(i + k)) >> 32 * which;
        pack.x[k] = randomly(x[k], (u16)random);
        pack.x[k + 1] = randomly(x[k + 1], (u16)(random >> 16));
    }
    put(at, pack, left);
}

// The sum of squares of each block's elements.
KERNEL(squares)(const float* x, double* sums, i64 n) {
    SHARED;
    double sum = 0.0;
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK];
        load(v, x + i, n - i);
        for (int k = 0; k < PACK; k++) sum += (double)v[k] * v[k];
    }
    sum = block_sum(sum, (double*)shared);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block adds up what the blocks before found.
KERNEL(total)(const double* sums, double* out, i64 n) {
    SHARED;
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum, (double*)shared);
    if (threadIdx.x == 0) *out = sum;
}

// How many of the sorted places are at or in front of `i`; the last of them, number `last`, is not.
INLINE i64 passed(const i64* places, i64 last, i64 i) {
    i64 from = 0, to = last;
    while (from < to) {
        i64 middle = (from + to) / 2;
        if (places[middle] <= i) from = middle + 1;
        else to = middle;
    }
    return from;
}

// `places` are where decay begins and ends, in turn, and behind them, at `last`, one past all elements.
KERNEL(adam)(
    float* master, bf16* weights, short* low, MOMENT* mean, MOMENT* square, const float* gradient,
    const i64* places, i64 last, i64 n, float scale, float beta1, float rest1, float beta2, float rest2,
    float decay, float rate, float root, float epsilon, i64 key
) {
    WEIGHTS kept = {master, weights, low};
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float w[PACK], m[PACK], v[PACK], g[PACK];
        read(w, kept, i, n - i);
        load(m, mean + i, n - i);
        load(v, square + i, n - i);
        load(g, gradient + i, n - i);
        i64 place = passed(places, last, i), next = places[place];
        for (int k = 0; k < PACK; k++) {
            while (i + k >= next && place < last) next = places[++place];
            float x = g[k] * scale;
            m[k] = beta1 * m[k] + rest1 * x;
            v[k] = beta2 * v[k] + rest2 * (x * x);
            float share = place % 2 == 1 ? decay : 1.0f;
            w[k] = share * w[k] - rate * (m[k] / (root * sqrtf(v[k]) + epsilon));
        }
        write(kept, w, i, n - i);
        keep(mean + i, m, i, n - i, (u64)key, 0);
        keep(square + i, v, i, n - i, (u64)key, 1);
    }
}

KERNEL(rmsprop)(
    float* master, bf16* weights, short* low, MOMENT* square, const float* gradient, i64 n,
    float scale, float alpha, float rest, float rate, float epsilon, i64 key
) {
    WEIGHTS kept = {master, weights, low};
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float w[PACK], v[PACK], g[PACK];
        read(w, kept, i, n - i);
        load(v, square + i, n - i);
        load(g, gradient + i, n - i);
        for (int k = 0; k < PACK; k++) {
            float x = g[k] * scale;
            v[k] = alpha * v[k] + rest * (x * x);
            w[k] -= rate * (x / (sqrtf(v[k]) + epsilon));
        }
        write(kept, w, i, n - i);
        keep(square + i, v, i, n - i, (u64)key, 1);
    }
}

KERNEL(lion)(
    float* master, bf16* weights, short* low, MOMENT* mean, const float* gradient, const i64* places,
    i64 last, i64 n, float scale, float beta1, float rest1, float beta2, float rest2, float decay,
    float rate, i64 key
) {
    WEIGHTS kept = {master, weights, low};
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float w[PACK], m[PACK], g[PACK];
        read(w, kept, i, n - i);
        load(m, mean + i, n - i);
        load(g, gradient + i, n - i);
        i64 place = passed(places, last, i), next = places[place];
        for (int k = 0; k < PACK; k++) {
            while (i + k >= next && place < last) next = places[++place];
            float x = g[k] * scale;
            float direction = beta1 * m[k] + rest1 * x;
            float share = place % 2 == 1 ? decay : 1.0f;
            float up = direction > 0.0f ? rate : 0.0f, down = direction < 0.0f ? rate : 0.0f;
            w[k] = share * w[k] - (up - down);
            m[k] = beta2 * m[k] + rest2 * x;
        }
        write(kept, w, i, n - i);
        keep(mean + i, m, i, n - i, (u64)key, 0);
    }
}

KERNEL(descend)(
    float* master, bf16* weights, short* low, const float* direction, i64 n, float share, float rate
) {
    WEIGHTS kept = {master, weights, low};
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float w[PACK], x[PACK];
        read(w, kept, i, n - i);
        load(x, direction + i, n - i);
        for (int k = 0; k < PACK; k++) w[k] = share * w[k] - rate * x[k];
        write(kept, w, i, n - i);
    }
}

// Numbers in 8 bits: a code each, the first of a pack in the lowest bits, and an absmax per block. A warp
// has a block.
const int BLOCK = 32 * PACK;
const int CODES = 256;

INLINE u64 get_codes(const u8* at, i64 left) {
    if (left >= PACK && (u64)at % PACK == 0) return *(const u64*)at;
    u64 codes = 0;
    for (int k = 0; k < PACK; k++) {
        if (k < left) codes |= (u64)at[k] << 8 * k;
    }
    return codes;
}

INLINE void put_codes(u8* at, u64 codes, i64 left) {
    if (left >= PACK && (u64)at % PACK == 0) {
        *(u64*)at = codes;
    } else {
        for (int k = 0; k < PACK && k < left; k++) at[k] = (u8)(codes >> 8 * k);
    }
}

// Zeros behind the last of `left`, whatever code they have.
INLINE void decode(float (&x)[PACK], u64 codes, float absmax, const float* map, i64 left) {
    for (int k = 0; k < PACK; k++) x[k] = k < left ? map[codes >> 8 * k & 255] * absmax : 0.0f;
}

// The number of bounds below x, which are in ascending order.
INLINE u32 code(float x, const float* bounds) {
    u32 code = 0;
    for (u32 half = CODES / 2; half > 0; half /= 2) {
        if (x > bounds[code + half - 1]) code += half;
    }
    return code;
}

INLINE float largest(const float (&x)[PACK]) {
    float most = 0.0f;
    for (int k = 0; k < PACK; k++) most = fabsf(x[k]) > most ? fabsf(x[k]) : most;
    return warp_max(most);
}

INLINE u64 encode(const float (&x)[PACK], float absmax, const float* bounds) {
    // Of nothing but zeros the quotients would be NaN.
    float divisor = absmax == 0.0f ? 1.0f : absmax;
    u64 codes = 0;
    for (int k = 0; k < PACK; k++) codes |= (u64)code(x[k] / divisor, bounds) << 8 * k;
    return codes;
}

// `maps` are a map and its bounds for the mean, and those for the square.
KERNEL(adam_8bit)(
    float* master, bf16* weights, short* low, u8* mean, float* mean_absmax, u8* square,
    float* square_absmax, const float* gradient, const float* maps, i64 n, float scale, float beta1,
    float rest1, float beta2, float rest2, float share, float rate, float root, float epsilon
) {
    SHARED;
    float* map = (float*)shared;
    for (i64 i = threadIdx.x; i < 4 * CODES; i += blockDim.x) map[i] = maps[i];
    __syncthreads();
    WEIGHTS kept = {master, weights, low};
    for (i64 block = thread_index() / 32; block * BLOCK < n; block += thread_count() / 32) {
        i64 i = block * BLOCK + threadIdx.x % 32 * PACK, left = n - i;
        float w[PACK], m[PACK], v[PACK], g[PACK];
        read(w, kept, i, left);
        load(g, gradient + i, left);
        decode(m, get_codes(mean + i, left), mean_absmax[block], map, left);
        decode(v, get_codes(square + i, left), square_absmax[block], map + 2 * CODES, left);
        for (int k = 0; k < PACK; k++) {
            float x = g[k] * scale;
            m[k] = beta1 * m[k] + rest1 * x;
            v[k] = beta2 * v[k] + rest2 * (x * x);
            w[k] = share * w[k] - rate * (m[k] / (root * sqrtf(v[k]) + epsilon));
        }
        write(kept, w, i, left);
        float most = largest(m), most_square = largest(v);
        put_codes(mean + i, encode(m, most, map + CODES), left);
        put_codes(square + i, encode(v, most_square, map + 3 * CODES), left);
        if (threadIdx.x % 32 == 0) {
            mean_absmax[block] = most;
            square_absmax[block] = most_square;
        }
    }
}
