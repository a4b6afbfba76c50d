// Rows with a number of each. A: the elements of the rows.

// A warp per row.
KERNEL(weigh)(A* x, const float* weights, i64 count, i64 width) {
    for (i64 row = thread_index() / 32; row < count; row += thread_count() / 32) {
        float weight = weights[row];
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK];
            load(v, x + row * width + i, width - i);
            for (int k = 0; k < PACK; k++) v[k] *= weight;
            store(x + row * width + i, v, width - i);
        }
    }
}

// A warp per row.
KERNEL(dots)(const A* a, const A* b, float* sums, i64 count, i64 width) {
    for (i64 row = thread_index() / 32; row < count; row += thread_count() / 32) {
        float sum = 0.0f;
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float x[PACK], y[PACK];
            load(x, a + row * width + i, width - i);
            load(y, b + row * width + i, width - i);
            for (int k = 0; k < PACK; k++) sum += x[k] * y[k];
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) sums[row] = sum;
    }
}
