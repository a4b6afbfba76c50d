// Attention of packed segments, tile by tile. A: the operands' type; HEAD_DIM; KEYS and QUERIES: how
// many keys, or queries, are in shared memory at a time; SHARES: 2 where the sums for keys and for
// values do not fit the registers, so that two warps share the columns; CAPPED: 1 where scores have a soft
// cap.
//
// A tile of queries is six numbers: its first token, how many tokens, their first row in the output,
// and of its segment the prefix's first token, the prefix's length and the first own token. The
// position of a token is its place along prefix and own. A row's result does not depend on what else
// is in its tile.

const int WIDTH = (HEAD_DIM + 15) / 16 * 16;
const int PACKET = 16 / sizeof(A);
// An odd number of 16 bytes: eight rows, one below the other, lie in different banks.
const int STRIDE = WIDTH + PACKET;
const int CHUNKS = WIDTH / 16;
// Rows of a tile, 16 to a warp.
const int TILE = 64;
const int SHARE = (CHUNKS + SHARES - 1) / SHARES;

const float LOG2_E = 1.4426950408889634f;
const int NEVER = 1 << 30;

struct Tile {
    int first, count, row, prefix, before, own;
};

INLINE Tile tile_at(const u32* tiles, i64 at) {
    const u32* x = tiles + 6 * at;
    return Tile{(int)x[0], (int)x[1], (int)x[2], (int)x[3], (int)x[4], (int)x[5]};
}

// Of a tile's token, or of any of its segment's.
INLINE int position(Tile tile, int token) { return tile.before + token - tile.own; }

// Of a token that a tile's queries may see.
INLINE int key_position(Tile tile, int token) {
    if (token >= tile.own) return position(tile, token);
    int at = token - tile.prefix;
    return at >= 0 && at < tile.before ? at : NEVER;
}

// 2^x, zero where it is less than any normal number.
INLINE float power(float x) {
#ifdef EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Its inverse.
INLINE float exponent(float x) {
#ifdef EMULATOR
    return log2f(x);
#else
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// What is left to multiply scores by: those below a soft cap are scaled already.
INLINE float rest(float scale) { return CAPPED ? 1.0f : scale; }

// Scores to scaled ones below the cap, where there is one.
template <int N>
INLINE void soft_cap(float (&s)[N][4], float scale, float cap) {
    if (!CAPPED) return;
    float share = scale / cap;
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++) s[n][i] = cap * tanhf(s[n][i] * share);
}

// The derivative by the scaled score, at what it became.
INLINE float cap_slope(float score, float cap) {
    float share = score / cap;
    return 1.0f - share * share;
}

INLINE bool sees(int query, int key, int window) { return key <= query && query - key < window; }

// Rows of a head to shared memory, zeros from `end` on. Row r is token `own` + first + r; or, where
// there is a prefix of `before` tokens, what has the position first + r.
template <int ROWS>
INLINE void stage(A* to, const A* from, i64 stride, Tile run, int first, int end) {
    const int PACKETS = WIDTH / PACKET;
    for (int i = threadIdx.x; i < ROWS * PACKETS; i += blockDim.x) {
        int row = i / PACKETS, column = i % PACKETS * PACKET, at = first + row;
        int left = at < end ? HEAD_DIM - column : 0;
        i64 token = at < run.before ? run.prefix + at : run.own + at - run.before;
        copy_to_shared(to + row * STRIDE + column, left > 0 ? from + token * stride + column : from, left);
    }
}

// Rows one after the other.
INLINE Tile rows_from(int first) { return Tile{0, 0, 0, 0, 0, first}; }

// A warp's 16 rows of shared memory to those of a head, as many as there are.
INLINE void leave(A* to, i64 stride, const A* rows, int count) {
    const int PACKETS = WIDTH / PACKET;
    __syncwarp();
    for (int i = threadIdx.x % 32; i < 16 * PACKETS; i += 32) {
        int row = i / PACKETS, column = i % PACKETS * PACKET, left = HEAD_DIM - column;
        if (row >= count) break;
        const A* from = rows + row * STRIDE + column;
        A* at = to + row * stride + column;
        if (left >= PACKET && (u64)at % 16 == 0) {
            *(Pack<A, PACKET>*)at = *(const Pack<A, PACKET>*)from;
        } else {
            for (int k = 0; k < PACKET && k < left; k++) at[k] = from[k];
        }
    }
}

// A warp's sums, from column `first` on, times a factor for each half of the rows, to its rows of
// shared memory.
template <int N>
INLINE void settle(A* rows, const float (&sum)[N][4], int first, float upper, float lower) {
    rows += threadIdx.x % 32 / 4 * STRIDE + threadIdx.x % 4 * 2 + first;
    UNROLL for (int n = 0; n < N; n++) {
        if (SHARES > 1 && first + 8 * n >= WIDTH) break;
        join((Two<A>*)(rows + 8 * n), sum[n][0] * upper, sum[n][1] * upper);
        join((Two<A>*)(rows + 8 * STRIDE + 8 * n), sum[n][2] * lower, sum[n][3] * lower);
    }
}

template <int N>
INLINE void clear(float (&sum)[N][4]) {
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++) sum[n][i] = 0.0f;
}

// 16 rows times the transpose of 8 N rows, over the whole width.
template <int N>
INLINE void scores(float (&s)[N][4], const A* rows, const A* others) {
    clear(s);
    UNROLL_EIGHT for (int chunk = 0; chunk < CHUNKS; chunk++) {
        Left<A> a;
        load_left<STRIDE>(a, rows + 16 * chunk);
        UNROLL for (int n = 0; n < N; n += 2) {
            Right<A> b[2];
            load_transposed<STRIDE>(b, others + 8 * n * STRIDE + 16 * chunk);
            multiply(s[n], a, b[0]);
            multiply(s[n + 1], a, b[1]);
        }
    }
}

// sum += p, (16, 8 N), rounded, times 8 N rows; the columns of chunks from `chunk` on.
template <int N, int M>
INLINE void accumulate(float (&sum)[M][4], const float (&p)[N][4], const A* rows, int chunk) {
    __syncwarp();
    UNROLL for (int n = 0; n < N; n += 2) {
        Left<A> a;
        UNROLL for (int i = 0; i < 4; i++) join(&a.x[i], p[n + i / 2][i % 2 * 2], p[n + i / 2][i % 2 * 2 + 1]);
        UNROLL for (int m = 0; m < M; m += 2) {
            if (SHARES > 1 && chunk + m / 2 >= CHUNKS) break;
            Right<A> b[2];
            load_right<STRIDE>(b, rows + 8 * n * STRIDE + 16 * chunk + 8 * m);
            multiply(sum[m], a, b[0]);
            multiply(sum[m + 1], a, b[1]);
        }
    }
}

// Over the four lanes that hold a row.
INLINE float row_max(float x) {
    for (int mask = 1; mask < 4; mask *= 2) {
        float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = other > x ? other : x;
    }
    return x;
}
INLINE float row_sum(float x) {
    for (int mask = 1; mask < 4; mask *= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
    return x;
}

// A block is a tile of queries of one head; `scale` and `cap` are of scores.
KERNEL(attention)(
    const A* q, const A* k, const A* v, const u32* tiles, A* y, float* log_sum_exp,
    i64 q_token, i64 q_head, i64 k_token, i64 k_head, i64 v_token, i64 v_head,
    i64 group, i64 window, float scale, float cap
) {
    SHARED;
    A* qs = (A*)shared;
    A* ks = qs + TILE * STRIDE;
    A* vs = ks + KEYS * STRIDE;
    Tile tile = tile_at(tiles, blockIdx.x);
    i64 head = blockIdx.y, heads = gridDim.y;
    q += head * q_head;
    k += head / group * k_head;
    v += head / group * v_head;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, span = window;
    int first = position(tile, tile.first), end = first + tile.count;
    int mine = first + 16 * warp, my_end = mine + 16 < end ? mine + 16 : end;
    int start = first < span ? 0 : (first + 1 - span) / KEYS * KEYS;
    const A* my_qs = qs + 16 * warp * STRIDE;

    stage<TILE>(qs, q, q_token, rows_from(tile.first), 0, tile.count);
    stage<KEYS>(ks, k, k_token, tile, start, end);
    float sum[2 * CHUNKS][4], most[2], total[2];
    clear(sum);
    UNROLL for (int i = 0; i < 2; i++) {
        most[i] = __uint_as_float(0xff800000u);
        total[i] = 0.0f;
    }
    for (int base = start; base < end; base += KEYS) {
        bool busy = mine < end && base < my_end;
        float s[KEYS / 8][4];
        copies_arrived();
        stage<KEYS>(vs, v, v_token, tile, base, end);
        if (busy) scores(s, my_qs, ks);
        if (busy) soft_cap(s, scale, cap);
        copies_arrived();
        if (base + KEYS < end) stage<KEYS>(ks, k, k_token, tile, base + KEYS, end);
        if (!busy) continue;
        if (base + KEYS > mine + 1 || my_end - base > span) {
            UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
                int key = base + 8 * n + lane % 4 * 2 + i % 2, query = mine + lane / 4 + i / 2 * 8;
                if (!sees(query, key, span)) s[n][i] = __uint_as_float(0xff800000u);
            }
        }
        UNROLL for (int half = 0; half < 2; half++) {
            float largest = most[half];
            UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 2 * half; i < 2 * half + 2; i++) {
                largest = s[n][i] > largest ? s[n][i] : largest;
            }
            largest = row_max(largest);
            // A row may have seen nothing yet, where a window hides the first keys.
            float shift = largest < -3e38f ? 0.0f : largest * (rest(scale) * LOG2_E), row = 0.0f;
            float factor = power(most[half] * (rest(scale) * LOG2_E) - shift);
            UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 2 * half; i < 2 * half + 2; i++) {
                s[n][i] = power(s[n][i] * (rest(scale) * LOG2_E) - shift);
                row += s[n][i];
            }
            UNROLL for (int n = 0; n < 2 * CHUNKS; n++) {
                sum[n][2 * half] *= factor;
                sum[n][2 * half + 1] *= factor;
            }
            most[half] = largest;
            total[half] = total[half] * factor + row_sum(row);
        }
        accumulate(sum, s, vs, 0);
    }
    if (mine >= end) return;
    A* mine_out = (A*)my_qs;
    settle(mine_out, sum, 0, 1.0f / total[0], 1.0f / total[1]);
    i64 row = tile.row + 16 * warp;
    leave(y + (row * heads + head) * HEAD_DIM, heads * HEAD_DIM, mine_out, end - mine);
    if (lane % 4 == 0) UNROLL for (int half = 0; half < 2; half++) {
        int at = lane / 4 + 8 * half;
        if (mine + at < end) log_sum_exp[(row + at) * heads + head] = most[half] * rest(scale) + logf(total[half]);
    }
}

// The sum of dy y of each row of HEAD_DIM elements.
KERNEL(attention_delta)(const A* dy, const A* y, float* delta, i64 rows) {
    for (i64 row = thread_index() / 32; row < rows; row += thread_count() / 32) {
        float sum = 0.0f;
        for (int at = threadIdx.x % 32 * PACK; at < HEAD_DIM; at += 32 * PACK) {
            float a[PACK], b[PACK];
            load(a, dy + row * HEAD_DIM + at, HEAD_DIM - at);
            load(b, y + row * HEAD_DIM + at, HEAD_DIM - at);
            for (int i = 0; i < PACK; i++) sum += a[i] * b[i];
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) delta[row] = sum;
    }
}

// Gradients of queries, laid out as q; a block is a tile of queries of one head.
KERNEL(attention_queries)(
    const A* q, const A* k, const A* v, const u32* tiles, const A* dy, const float* log_sum_exp,
    const float* delta, A* dqkv, i64 dq,
    i64 q_token, i64 q_head, i64 k_token, i64 k_head, i64 v_token, i64 v_head,
    i64 group, i64 window, float scale, float cap
) {
    SHARED;
    A* qs = (A*)shared;
    A* dys = qs + TILE * STRIDE;
    A* ks = dys + TILE * STRIDE;
    A* vs = ks + KEYS * STRIDE;
    Tile tile = tile_at(tiles, blockIdx.x);
    i64 head = blockIdx.y, heads = gridDim.y;
    k += head / group * k_head;
    v += head / group * v_head;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, span = window;
    int first = position(tile, tile.first), end = first + tile.count;
    int mine = first + 16 * warp, my_end = mine + 16 < end ? mine + 16 : end;
    int start = first < span ? 0 : (first + 1 - span) / KEYS * KEYS;
    const A* my_qs = qs + 16 * warp * STRIDE;

    stage<TILE>(qs, q + head * q_head, q_token, rows_from(tile.first), 0, tile.count);
    stage<TILE>(dys, dy + head * HEAD_DIM, heads * HEAD_DIM, rows_from(tile.row), 0, tile.count);
    stage<KEYS>(vs, v, v_token, tile, start, end);
    float shift[2], along[2], sum[2 * CHUNKS][4];
    UNROLL for (int half = 0; half < 2; half++) {
        int at = 16 * warp + lane / 4 + 8 * half;
        i64 place = (tile.row + at) * heads + head;
        shift[half] = at < tile.count ? log_sum_exp[place] * LOG2_E : 0.0f;
        along[half] = at < tile.count ? delta[place] : 0.0f;
    }
    clear(sum);
    for (int base = start; base < end; base += KEYS) {
        bool busy = mine < end && base < my_end;
        float s[KEYS / 8][4], dp[KEYS / 8][4];
        copies_arrived();
        stage<KEYS>(ks, k, k_token, tile, base, end);
        if (busy) scores(dp, dys + 16 * warp * STRIDE, vs);
        copies_arrived();
        if (base + KEYS < end) stage<KEYS>(vs, v, v_token, tile, base + KEYS, end);
        if (!busy) continue;
        scores(s, my_qs, ks);
        soft_cap(s, scale, cap);
        UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            int key = base + 8 * n + lane % 4 * 2 + i % 2, query = mine + lane / 4 + i / 2 * 8;
            float p = power(s[n][i] * (rest(scale) * LOG2_E) - shift[i / 2]);
            float slope = CAPPED ? cap_slope(s[n][i], cap) : 1.0f;
            s[n][i] = sees(query, key, span) ? p * (dp[n][i] - along[i / 2]) * slope : 0.0f;
        }
        accumulate(sum, s, ks, 0);
    }
    if (mine >= end) return;
    settle((A*)my_qs, sum, 0, scale, scale);
    A* to = dqkv + dq + head * q_head + (i64)(tile.first + 16 * warp) * q_token;
    leave(to, q_token, my_qs, end - mine);
}

// Gradients of keys and values, laid out as k and v. A block is a run of tokens and one head of keys:
// `runs` has the first token, how many, and which of `visits`, indices of the tiles that see some.
KERNEL(attention_keys)(
    const A* q, const A* k, const A* v, const u32* tiles, const u32* runs, const u32* visits,
    const A* dy, const float* log_sum_exp, const float* delta, A* dqkv, i64 dk, i64 dv,
    i64 q_token, i64 q_head, i64 k_token, i64 k_head, i64 v_token, i64 v_head,
    i64 group, i64 window, float scale, float cap
) {
    SHARED;
    A* ks = (A*)shared;
    A* vs = ks + TILE * STRIDE;
    A* qs = vs + TILE * STRIDE;
    A* dys = qs + QUERIES * STRIDE;
    float* shifts = (float*)(dys + QUERIES * STRIDE);
    float* alongs = shifts + QUERIES;
    const u32* run = runs + 4 * (i64)blockIdx.x;
    int first = run[0], count = run[1];
    i64 kv_head = blockIdx.y, heads = gridDim.y * group;
    int warp = threadIdx.x / 32 % 4, share = threadIdx.x / 128, lane = threadIdx.x % 32, span = window;
    const A* my_ks = ks + 16 * warp * STRIDE;
    const A* my_vs = vs + 16 * warp * STRIDE;

    stage<TILE>(ks, k + kv_head * k_head, k_token, rows_from(first), 0, count);
    stage<TILE>(vs, v + kv_head * v_head, v_token, rows_from(first), 0, count);
    float dks[2 * SHARE][4], dvs[2 * SHARE][4];
    clear(dks);
    clear(dvs);
    for (u32 visit = run[2]; visit < run[2] + run[3]; visit++) {
        Tile tile = tile_at(tiles, visits[visit]);
        int last_token = first + count < tile.first + tile.count ? first + count : tile.first + tile.count;
        int prefix_end = tile.prefix + tile.before;
        int nearest = last_token > tile.own ? position(tile, last_token)
            : (last_token < prefix_end ? last_token : prefix_end) - tile.prefix;
        if (position(tile, tile.first) - nearest + 1 >= span) continue;
        int key[2];
        UNROLL for (int half = 0; half < 2; half++) {
            int at = 16 * warp + lane / 4 + 8 * half;
            key[half] = at < count ? key_position(tile, first + at) : NEVER;
        }
        for (i64 head = kv_head * group; head < (kv_head + 1) * group; head++)
            for (int base = 0; base < tile.count; base += QUERIES) {
                int begin = position(tile, tile.first) + base, end = position(tile, tile.first) + tile.count;
                if (begin + QUERIES < end) end = begin + QUERIES;
                __syncthreads();
                stage<QUERIES>(qs, q + head * q_head, q_token, rows_from(tile.first), base, tile.count);
                for (int i = threadIdx.x; i < QUERIES; i += blockDim.x) {
                    i64 place = (i64)(tile.row + base + i) * heads + head;
                    shifts[i] = base + i < tile.count ? log_sum_exp[place] * LOG2_E : 0.0f;
                    alongs[i] = base + i < tile.count ? delta[place] : 0.0f;
                }
                copies_arrived();
                stage<QUERIES>(dys, dy + head * HEAD_DIM, heads * HEAD_DIM, rows_from(tile.row), base, tile.count);
                bool any = false;
                UNROLL for (int half = 0; half < 2; half++) any |= key[half] < end && begin - key[half] < span;
                bool busy = __ballot_sync(0xffffffffu, any) != 0;
                float s[QUERIES / 8][4], dp[QUERIES / 8][4];
                if (busy) {
                    scores(s, my_ks, qs);
                    soft_cap(s, scale, cap);
                    UNROLL for (int n = 0; n < QUERIES / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
                        int at = 8 * n + lane % 4 * 2 + i % 2, query = begin + at;
                        float p = power(s[n][i] * (rest(scale) * LOG2_E) - shifts[at]);
                        s[n][i] = query < end && sees(query, key[i / 2], span) ? p : 0.0f;
                    }
                }
                copies_arrived();
                if (!busy) continue;
                accumulate(dvs, s, dys, share * SHARE);
                scores(dp, my_vs, dys);
                UNROLL for (int n = 0; n < QUERIES / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
                    int at = 8 * n + lane % 4 * 2 + i % 2;
                    // No registers are left for slopes: the score once more, from its probability.
                    float p = s[n][i];
                    s[n][i] *= dp[n][i] - alongs[at];
                    if (CAPPED && p > 0.0f) {
                        s[n][i] *= cap_slope((exponent(p) + shifts[at]) / LOG2_E, cap);
                    }
                }
                accumulate(dks, s, qs, share * SHARE);
            }
    }
    copies_arrived();
    settle((A*)my_ks, dks, 16 * SHARE * share, scale, scale);
    settle((A*)my_vs, dvs, 16 * SHARE * share, 1.0f, 1.0f);
    __syncthreads();
    if (share > 0) return;
    i64 token = first + 16 * warp;
    leave(dqkv + dk + kv_head * k_head + token * k_token, k_token, my_ks, count - 16 * warp);
    leave(dqkv + dv + kv_head * v_head + token * v_token, v_token, my_vs, count - 16 * warp);
}
