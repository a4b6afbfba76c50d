// Rows of an adapted weight scaled to learned magnitudes. W: the elements of the weight, the adapter and its
// inputs; Y: those of what is added to.

// A warp per row of the weight (outs, width); a is (rank, width), b (outs, rank).
KERNEL(factors)(
    const W* weight, const W* a, const W* b, const W* magnitude, float* own, float* norms, i64 outs,
    i64 width, i64 rank, float scale
) {
    for (i64 row = thread_index() / 32; row < outs; row += thread_count() / 32) {
        float sum = 0.0f;
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK];
            load(v, weight + row * width + i, width - i);
            for (i64 r = 0; r < rank; r++) {
                float x[PACK], factor = scale * wide(b[row * rank + r]);
                load(x, a + r * width + i, width - i);
                for (int k = 0; k < PACK; k++) v[k] += factor * x[k];
            }
            for (int k = 0; k < PACK; k++) sum += v[k] * v[k];
        }
        float norm = sqrtf(warp_sum(sum));
        if (threadIdx.x % 32 == 0) {
            norms[row] = norm;
            own[row] = norm > 0.0f ? wide(magnitude[row]) / norm : 0.0f;
        }
    }
}

// A warp per row.
KERNEL(add_scaled)(
    const W* x, const float* factors, Y* y, i64 rows, i64 width, i64 from, i64 to
) {
    for (i64 row = thread_index() / 32; row < rows; row += thread_count() / 32) {
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK], f[PACK], w[PACK];
            load(v, x + row * from + i, width - i);
            load(f, factors + i, width - i);
            load(w, y + row * to + i, width - i);
            for (int k = 0; k < PACK; k++) w[k] += v[k] * f[k];
            store(y + row * to + i, w, width - i);
        }
    }
}

// A warp per row: c = a b / norms, (rows, width).
KERNEL(products)(
    const W* a, const W* b, const float* norms, float* c, i64 rows, i64 width, i64 of_a, i64 of_b
) {
    for (i64 row = thread_index() / 32; row < rows; row += thread_count() / 32) {
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK], f[PACK], w[PACK];
            load(v, a + row * of_a + i, width - i);
            load(f, norms + i, width - i);
            load(w, b + row * of_b + i, width - i);
            for (int k = 0; k < PACK; k++) w[k] = f[k] > 0.0f ? w[k] * v[k] / f[k] : 0.0f;
            store(c + row * width + i, w, width - i);
        }
    }
}
