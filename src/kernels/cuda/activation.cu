// Activations, alone and as gates. A: the elements' type; KIND: which activation. Each is a share of its
// input.

enum Kind { GELU, GELU_TANH, SILU };

INLINE float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678118654752f * x); }
INLINE float normal_density(float x) { return 0.39894228040143268f * expf(-0.5f * x * x); }
INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Twice the argument of GELU's tanh, and its derivative.
INLINE float twice(float x) { return 1.5957691216057308f * (x + 0.044715f * (x * x * x)); }
INLINE float twice_slope(float x) { return 1.5957691216057308f * (1.0f + 0.134145f * (x * x)); }

// (1 + tanh(z / 2)) / 2, which is the sigmoid of z; where `other`, 1 less it. Neither is a difference, in
// which digits would cancel.
INLINE float tanh_share(float z, bool other) {
    float e = expf(-fabsf(z)), large = 1.0f / (1.0f + e);
    return (z < 0.0f) == other ? large : e * large;
}

INLINE float share(float x) {
    if (KIND == GELU) return normal_cdf(x);
    if (KIND == SILU) return sigmoid(x);
    return tanh_share(twice(x), false);
}

// The derivative, given the share and the activation.
INLINE float slope(float x, float share, float y) {
    if (KIND == GELU) return share + x * normal_density(x);
    if (KIND == SILU) return share + y * (1.0f - share);
    // A share of 0 or 1 stays so, wherever the square of x overflows.
    float rest = y * tanh_share(twice(x), true);
    return share + (rest == 0.0f ? 0.0f : rest * twice_slope(x));
}

KERNEL(apply)(const A* x, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK];
        load(v, x + i, n - i);
        for (int k = 0; k < PACK; k++) v[k] *= share(v[k]);
        store(y + i, v, n - i);
    }
}

// dy becomes dx; y is the output once more.
KERNEL(apply_backward)(A* dy, const A* x, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float v[PACK], d[PACK];
        load(v, x + i, n - i);
        load(d, dy + i, n - i);
        for (int k = 0; k < PACK; k++) {
            float of = share(v[k]), out = v[k] * of;
            d[k] *= slope(v[k], of, out);
            v[k] = out;
        }
        store(dy + i, d, n - i);
        store(y + i, v, n - i);
    }
}

KERNEL(gated)(const A* gate, const A* up, A* y, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float g[PACK], u[PACK];
        load(g, gate + i, n - i);
        load(u, up + i, n - i);
        for (int k = 0; k < PACK; k++) g[k] *= share(g[k]) * u[k];
        store(y + i, g, n - i);
    }
}

// dy becomes d up; y is the output once more.
KERNEL(gated_backward)(A* dy, const A* gate, const A* up, A* y, A* dgate, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float g[PACK], u[PACK], d[PACK];
        load(g, gate + i, n - i);
        load(u, up + i, n - i);
        load(d, dy + i, n - i);
        for (int k = 0; k < PACK; k++) {
            float of = share(g[k]), out = g[k] * of;
            g[k] = d[k] * u[k] * slope(g[k], of, out);
            u[k] *= out;
            d[k] *= out;
        }
        store(y + i, u, n - i);
        store(dgate + i, g, n - i);
        store(dy + i, d, n - i);
    }
}
