// Dropout. A: the elements of the rows.

// The finalizer of MurmurHash3.
INLINE u32 mixed(u32 x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

// A warp per row; y = or += x with dropped elements.
KERNEL(dropout)(
    const A* x, const u32* keys, A* y, i64 count, i64 width, i64 first, i64 second, i64 threshold, i64 add,
    float factor
) {
    for (i64 row = thread_index() / 32; row < count; row += thread_count() / 32) {
        u32 state = mixed(keys[row] + (u32)first) ^ (u32)second;
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK], w[PACK] = {};
            load(v, x + row * width + i, width - i);
            if (add) load(w, y + row * width + i, width - i);
            for (int k = 0; k < PACK; k++) {
                u32 hash = mixed(state + (u32)(i + k) * 0x9e3779b9u);
                w[k] += hash < (u32)threshold ? 0.0f : v[k] * factor;
            }
            store(y + row * width + i, w, width - i);
        }
    }
}
