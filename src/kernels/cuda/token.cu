// A row of logits: its statistics at a label, and its gradient. A block per row. A: the gradient's type;
// CAPPED: 1 where the logits are below a soft cap.

const float FAR_BELOW = -1e4f;

INLINE float nothing() { return __uint_as_float(0xff800000u); }

// The elements of a row at `i`, a multiple of PACK from where memory is aligned, which may lie in front
// of the row or go over its end.
INLINE void take(float (&z)[PACK], const float* row, i64 i, i64 n) {
    if (i >= 0 && i + PACK <= n) {
        load(z, row + i, PACK);
    } else {
        for (int k = 0; k < PACK; k++) z[k] = i + k >= 0 && i + k < n ? row[i + k] : nothing();
    }
}

// Minus the elements between an aligned address and the row's first.
INLINE i64 before(const float* row) { return -(i64)((u64)row / sizeof(float) % PACK); }

// A logit z becomes cap tanh(share z).
KERNEL(soft_cap)(float* logits, i64 n, float share, float cap) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float z[PACK];
        load(z, logits + i, n - i);
        for (int k = 0; k < PACK; k++) z[k] = cap * tanhf(share * z[k]);
        store(logits + i, z, n - i);
    }
}

template <class T>
INLINE T far_at_most(T below) {
    return below < FAR_BELOW ? (T)FAR_BELOW : below;
}

// The sums of e = exp(z - max), of e (z - max) and of e^2, of the largest z so far.
struct Sums {
    float max;
    double e, weighted, squares;
};

INLINE void raise(Sums* sums, float max) {
    double by = far_at_most((double)sums->max - max), factor = exp(by);
    sums->weighted = factor * (sums->weighted + by * sums->e);
    sums->e *= factor;
    sums->squares *= factor * factor;
    sums->max = max;
}

KERNEL(statistics)(const float* logits, const u32* labels, double* out, i64 vocabulary) {
    SHARED;
    const float* row = logits + blockIdx.x * vocabulary;
    Sums sums = {nothing(), 0.0, 0.0, 0.0};
    for (i64 i = before(row) + (i64)threadIdx.x * PACK; i < vocabulary; i += (i64)blockDim.x * PACK) {
        float z[PACK], e = 0.0f, weighted = 0.0f, squares = 0.0f, max = sums.max;
        take(z, row, i, vocabulary);
        for (int k = 0; k < PACK; k++) max = z[k] > max ? z[k] : max;
        if (max > sums.max) raise(&sums, max);
        // Where all are -inf, the difference would hide them behind NaN.
        float from = max == nothing() ? 0.0f : max;
        for (int k = 0; k < PACK; k++) {
            float below = far_at_most(z[k] - from), share = expf(below);
            e += share;
            weighted += share * below;
            squares += share * share;
        }
        sums.e += e;
        sums.weighted += weighted;
        sums.squares += squares;
    }
    float max = block_max(sums.max, (float*)shared);
    raise(&sums, max);
    double e = block_sum(sums.e, (double*)shared);
    double weighted = block_sum(sums.weighted, (double*)shared);
    double squares = block_sum(sums.squares, (double*)shared);
    if (threadIdx.x == 0) {
        i64 label = labels[blockIdx.x];
        // A label outside the vocabulary has the log-prob of what cannot be.
        float z = label < vocabulary ? row[label] : nothing();
        double log_e = log(e), log_sum_exp = max + log_e;
        out += (i64)blockIdx.x * 5;
        out[0] = log_sum_exp;
        out[1] = z - log_sum_exp;
        out[2] = log_e - weighted / e;
        out[3] = z >= max;
        out[4] = log(squares) - 2.0 * log_e;
    }
}

// `numbers` has each row's log_sum_exp, then each row's seed. In place where A is float.
KERNEL(backward)(
    const float* logits, const u32* labels, const double* numbers, A* out, i64 vocabulary, float cap
) {
    const float* row = logits + blockIdx.x * vocabulary;
    i64 label = labels[blockIdx.x];
    double log_sum_exp = numbers[blockIdx.x], seed = numbers[gridDim.x + blockIdx.x];
    // What is lost by rounding the sum is put back by a factor, as it would be the same everywhere.
    float shift = (float)log_sum_exp;
    double rest = exp(shift - log_sum_exp);
    float factor = (float)(-seed * rest);
    out += blockIdx.x * vocabulary;
    for (i64 i = before(row) + (i64)threadIdx.x * PACK; i < vocabulary; i += (i64)blockDim.x * PACK) {
        float z[PACK];
        take(z, row, i, vocabulary);
        for (int k = 0; k < PACK; k++) {
            float e = expf(z[k] - shift), of_cap = z[k] / cap;
            z[k] = i + k == label ? (float)(seed * (1.0 - e * rest)) : factor * e;
            if (CAPPED) z[k] *= 1.0f - of_cap * of_cap;
        }
        if (i >= 0) {
            store(out + i, z, vocabulary - i);
        } else {
            for (int k = 0; k < PACK; k++) {
                if (i + k >= 0 && i + k < vocabulary) store(out + i + k, z[k]);
            }
        }
    }
}
