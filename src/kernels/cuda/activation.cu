// GELU with the exact normal distribution function, and SwiGLU. A: the elements' type.

INLINE float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678118654752f * x); }
INLINE float normal_density(float x) { return 0.39894228040143268f * expf(-0.5f * x * x); }
INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

KERNEL(gelu)(const A* x, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK];
        load(v, x + i, n - i);
        for (int k = 0; k < PACK; k++) v[k] *= normal_cdf(v[k]);
        store(y + i, v, n - i);
    }
}

// dy becomes dx; y is the output once more.
KERNEL(gelu_backward)(A* dy, const A* x, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK], d[PACK];
        load(v, x + i, n - i);
        load(d, dy + i, n - i);
        for (int k = 0; k < PACK; k++) {
            float cdf = normal_cdf(v[k]);
            d[k] *= cdf + v[k] * normal_density(v[k]);
            v[k] *= cdf;
        }
        store(dy + i, d, n - i);
        store(y + i, v, n - i);
    }
}

KERNEL(swiglu)(const A* gate, const A* up, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float g[PACK], u[PACK];
        load(g, gate + i, n - i);
        load(u, up + i, n - i);
        for (int k = 0; k < PACK; k++) g[k] *= sigmoid(g[k]) * u[k];
        store(y + i, g, n - i);
    }
}

// dy becomes d up; y is the output once more.
KERNEL(swiglu_backward)(A* dy, const A* gate, const A* up, A* y, A* dgate, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float g[PACK], u[PACK], d[PACK];
        load(g, gate + i, n - i);
        load(u, up + i, n - i);
        load(d, dy + i, n - i);
        for (int k = 0; k < PACK; k++) {
            float sigma = sigmoid(g[k]), silu = g[k] * sigma;
            g[k] = d[k] * u[k] * (sigma + silu * (1.0f - sigma));
            u[k] *= silu;
            d[k] *= silu;
        }
        store(y + i, u, n - i);
        store(dgate + i, g, n - i);
        store(dy + i, d, n - i);
    }
}
