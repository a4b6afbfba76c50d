// Copies from type to type, sums and products in place. S: the elements that are read; D: those that are written.

KERNEL(convert)(const S* x, D* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK];
        load(v, x + i, n - i);
        store(y + i, v, n - i);
    }
}

// A warp per row; (outer, inner, width) with the distances of the first two dimensions.
KERNEL(copy)(
    const S* x, D* y, i64 outer, i64 inner, i64 width, i64 x_outer, i64 x_inner, i64 y_outer,
    i64 y_inner
) {
    for (i64 row = thread_index() / 32; row < outer * inner; row += thread_count() / 32) {
        u32 a = (u32)row / (u32)inner, b = (u32)row % (u32)inner;
        const S* from = x + a * x_outer + b * x_inner;
        D* to = y + a * y_outer + b * y_inner;
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK];
            load(v, from + i, width - i);
            store(to + i, v, width - i);
        }
    }
}

KERNEL(add_assign)(D* sum, const S* x, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK], w[PACK];
        load(v, sum + i, n - i);
        load(w, x + i, n - i);
        for (int k = 0; k < PACK; k++) v[k] += w[k];
        store(sum + i, v, n - i);
    }
}

KERNEL(clear)(D* x, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK] = {};
        store(x + i, v, n - i);
    }
}

KERNEL(scale)(D* x, i64 n, float factor) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK];
        load(v, x + i, n - i);
        for (int k = 0; k < PACK; k++) v[k] *= factor;
        store(x + i, v, n - i);
    }
}

// A warp per row; a bias may be missing.
KERNEL(residual)(
    const D* x, const S* first, const S* second, D* y, i64 rows, i64 width, i64 distance
) {
    for (i64 row = thread_index() / 32; row < rows; row += thread_count() / 32) {
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK], a[PACK] = {}, b[PACK] = {};
            load(v, x + row * distance + i, width - i);
            if (first) load(a, first + i, width - i);
            if (second) load(b, second + i, width - i);
            for (int k = 0; k < PACK; k++) v[k] += a[k] + b[k];
            store(y + row * width + i, v, width - i);
        }
    }
}
