// Layer norm and root-mean-square norm. X: the elements of the input and its gradient; A: those of the
// weights and the output; D: those of the output's gradient; TEAM: threads that share a row, a warp or
// a whole block; PLUS_ONE: 1 where the factor is 1 + weight, else 0. Statistics are the mean and the
// inverse deviation of each row.

INLINE float team_sum(float x, float* scratch) {
    return TEAM == 32 ? warp_sum(x) : block_sum(x, scratch);
}

INLINE i64 first_row() { return (i64)blockIdx.x * (blockDim.x / TEAM) + threadIdx.x / TEAM; }
INLINE i64 row_step() { return (i64)gridDim.x * (blockDim.x / TEAM); }

// Where in a row a thread begins, and how far it goes at once.
INLINE i64 start() { return (i64)(threadIdx.x % TEAM) * PACK; }
const i64 STEP = TEAM * PACK;

// The factors of a row's elements.
INLINE void load_factors(float (&w)[PACK], const A* weight, i64 left) {
    load(w, weight, left);
    if (PLUS_ONE) {
        for (int k = 0; k < PACK; k++) w[k] += 1.0f;
    }
}

INLINE void scale(
    const X* x, const A* weight, const A* bias, A* y, i64 width, float mean, float inverse
) {
    for (i64 i = start(); i < width; i += STEP) {
        float v[PACK], w[PACK], b[PACK] = {};
        load(v, x + i, width - i);
        load_factors(w, weight + i, width - i);
        if (bias) load(b, bias + i, width - i);
        for (int k = 0; k < PACK; k++) v[k] = (v[k] - mean) * inverse * w[k] + b[k];
        store(y + i, v, width - i);
    }
}

// centered: 1 for layer norm, 0 for RMS norm, whose mean is 0.
KERNEL(norm_forward)(
    const X* x, const A* weight, const A* bias, A* y, float* statistics, i64 rows, i64 width,
    i64 centered, float epsilon
) {
    SHARED;
    float* scratch = (float*)shared;
    for (i64 row = first_row(); row < rows; row += row_step()) {
        const X* own = x + row * width;
        float mean = 0.0f, variance = 0.0f;
        if (centered) {
            for (i64 i = start(); i < width; i += STEP) {
                float v[PACK];
                load(v, own + i, width - i);
                for (int k = 0; k < PACK; k++) mean += v[k];
            }
            mean = team_sum(mean, scratch) / width;
        }
        for (i64 i = start(); i < width; i += STEP) {
            float v[PACK];
            load(v, own + i, width - i);
            for (int k = 0; k < PACK; k++) {
                float far = i + k < width ? v[k] - mean : 0.0f;
                variance += far * far;
            }
        }
        variance = team_sum(variance, scratch) / width;
        float inverse = 1.0f / sqrtf(variance + epsilon);
        if (start() == 0) {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = inverse;
        }
        scale(own, weight, bias, y + row * width, width, mean, inverse);
    }
}

KERNEL(norm_output)(
    const X* x, const float* statistics, const A* weight, const A* bias, A* y, i64 rows, i64 width
) {
    for (i64 row = first_row(); row < rows; row += row_step()) {
        float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
        scale(x + row * width, weight, bias, y + row * width, width, mean, inverse);
    }
}

// dx grows. A row of partials per block: sums over its rows of dy times the normalized input and, where
// centered is 1, behind them those of dy. While rows go by, element k of a team's pack p is at
// (p / TEAM * PACK + k) * TEAM + p % TEAM of the team's sums: side by side for threads side by side.
KERNEL(norm_backward)(
    const D* dy, const X* x, const float* statistics, const A* weight, X* dx, float* partials, i64 rows,
    i64 width, i64 centered
) {
    SHARED;
    float* scratch = (float*)shared;
    float* sums = scratch + 32;
    i64 padded = (width + STEP - 1) / STEP * STEP, size = (1 + centered) * padded;
    i64 teams = blockDim.x / TEAM;
    float* dweight = sums + threadIdx.x / TEAM * size + threadIdx.x % TEAM;
    float* dbias = dweight + padded;
    for (i64 i = 0; i < size; i += TEAM) dweight[i] = 0.0f;
    for (i64 row = first_row(); row < rows; row += row_step()) {
        float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
        float along = 0.0f, shift = 0.0f;
        for (i64 i = start(), at = 0; i < width; i += STEP, at += STEP) {
            float d[PACK], n[PACK], w[PACK];
            load(d, dy + row * width + i, width - i);
            load(n, x + row * width + i, width - i);
            load_factors(w, weight + i, width - i);
            for (int k = 0; k < PACK; k++) {
                n[k] = (n[k] - mean) * inverse;
                dweight[at + k * TEAM] += d[k] * n[k];
                if (centered) dbias[at + k * TEAM] += d[k];
                along += d[k] * w[k] * n[k];
                shift += d[k] * w[k];
            }
        }
        along = team_sum(along, scratch) / width;
        shift = centered ? team_sum(shift, scratch) / width : 0.0f;
        for (i64 i = start(); i < width; i += STEP) {
            float d[PACK], n[PACK], w[PACK], g[PACK];
            load(d, dy + row * width + i, width - i);
            load(n, x + row * width + i, width - i);
            load_factors(w, weight + i, width - i);
            load(g, dx + row * width + i, width - i);
            for (int k = 0; k < PACK; k++) {
                float normalized = (n[k] - mean) * inverse;
                g[k] += (d[k] * w[k] - normalized * along - shift) * inverse;
            }
            store(dx + row * width + i, g, width - i);
        }
    }
    __syncthreads();
    for (i64 column = threadIdx.x; column < (1 + centered) * width; column += blockDim.x) {
        i64 half = column / width, i = column - half * width, pack = i / PACK;
        const float* at = sums + half * padded + (pack / TEAM * PACK + i % PACK) * TEAM + pack % TEAM;
        float total = 0.0f;
        for (i64 team = 0; team < teams; team++) total += at[team * size];
        partials[blockIdx.x * (1 + centered) * width + column] = total;
    }
}
