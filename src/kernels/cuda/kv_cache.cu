// Attention of one new token per sequence over kept keys and values. A: the elements' type; WIDTH: a
// kept row's elements, those behind the head's own zeros; GROUP: query heads of a head of keys, HEADS
// of them at once; LANES: threads of a row; SLOTS: rows that a thread takes at once; CAPPED: 1 where
// scores have a soft cap.
//
// Keys and values are kept as (slots, kv_heads, capacity, WIDTH).

typedef Pack<A, PACK> Row;

const float LOG2_E = 1.4426950408889634f;
const int PIECES = WIDTH / PACK;

INLINE void unpack(float (&x)[PACK], const Row& row) {
    for (int k = 0; k < PACK; k++) x[k] = wide(row.x[k]);
}

// Copies a row (dim), wherever it begins, to a kept one; a lane per piece.
INLINE void keep_row(A* to, const A* from, i64 dim, int piece) {
    float x[PACK];
    load(x, from + piece * PACK, dim - piece * PACK);
    store(to + piece * PACK, x, PACK);
}

// A warp per token and head: keys and values of a prompt's tokens.
KERNEL(begin)(
    const A* keys, const A* values, A* kept_keys, A* kept_values, i64 tokens, i64 kv_heads, i64 dim,
    i64 capacity, i64 slot, i64 key_token, i64 key_head, i64 value_token, i64 value_head
) {
    int piece = threadIdx.x % 32;
    if (piece >= PIECES) return;
    for (i64 at = thread_index() / 32; at < tokens * kv_heads; at += thread_count() / 32) {
        i64 token = at / kv_heads, head = at % kv_heads;
        i64 to = ((slot * kv_heads + head) * capacity + token) * WIDTH;
        keep_row(kept_keys + to, keys + token * key_token + head * key_head, dim, piece);
        keep_row(kept_values + to, values + token * value_token + head * value_head, dim, piece);
    }
}

// A block per row of the step and head of keys: keeps the token's key and value behind those of its
// sequence, and attends to the last `window` of them. `places`: (2, rows), each row's slot, then the
// tokens there. Every LANES threads are a team, which takes kept rows of its own and sums them by the
// largest score that it has seen; the block adds up its teams.
KERNEL(extend)(
    const A* q, const A* k, const A* v, A* keys, A* values, const u32* places, A* y, i64 kv_heads,
    i64 dim, i64 capacity, i64 window, i64 q_token, i64 q_head, i64 k_token, i64 k_head,
    i64 v_token, i64 v_head, float scale, float cap
) {
    SHARED;
    const int teams = 32 / LANES, all_teams = teams * (blockDim.x / 32);
    i64 row = blockIdx.x / kv_heads, kv_head = blockIdx.x % kv_heads;
    i64 slot = places[row], newest = places[gridDim.x / kv_heads + row];
    keys += (slot * kv_heads + kv_head) * capacity * WIDTH;
    values += (slot * kv_heads + kv_head) * capacity * WIDTH;
    if (threadIdx.x < PIECES) {
        keep_row(keys + newest * WIDTH, k + row * k_token + kv_head * k_head, dim, threadIdx.x);
        keep_row(values + newest * WIDTH, v + row * v_token + kv_head * v_head, dim, threadIdx.x);
    }
    __syncthreads();
    i64 start = newest + 1 > window ? newest + 1 - window : 0;
    int visible = (int)(newest - start), team = threadIdx.x / LANES, piece = threadIdx.x % LANES;
    // Lanes without a piece of their own read another's.
    const A* own_keys = keys + start * WIDTH + (piece < PIECES ? piece : 0) * PACK;
    const A* own_values = values + start * WIDTH + (piece < PIECES ? piece : 0) * PACK;
    float* sums = (float*)shared;
    float* tops = sums + HEADS * all_teams * WIDTH;
    float* totals = tops + HEADS * all_teams;
    for (int before = 0; before < GROUP; before += HEADS) {
        i64 head = kv_head * GROUP + before;
        float query[HEADS][PACK], sum[HEADS][PACK], top[HEADS], total[HEADS];
        for (int h = 0; h < HEADS; h++) {
            load(query[h], q + row * q_token + (head + h) * q_head + piece * PACK, dim - piece * PACK);
            for (int i = 0; i < PACK; i++) {
                query[h][i] *= CAPPED ? scale / cap : scale * LOG2_E;
                sum[h][i] = 0.0f;
            }
            // Less than any score, and not so much that a difference were not a number.
            top[h] = -3e38f;
            total[h] = 0.0f;
        }
        // All lanes of a warp go as often.
        for (int base = team / teams * teams; base <= visible; base += SLOTS * all_teams) {
            Row key[SLOTS], value[SLOTS];
            float score[HEADS][SLOTS], x[PACK];
            int mine = base + team % teams;
            for (int s = 0; s < SLOTS; s++) {
                int at = mine + s * all_teams;
                i64 offset = (i64)(at <= visible ? at : visible) * WIDTH;
                key[s] = *(const Row*)(own_keys + offset);
                value[s] = *(const Row*)(own_values + offset);
            }
            for (int s = 0; s < SLOTS; s++) {
                unpack(x, key[s]);
                for (int h = 0; h < HEADS; h++) {
                    float dot = 0.0f;
                    for (int i = 0; i < PACK; i++) dot += query[h][i] * x[i];
                    for (int mask = LANES / 2; mask > 0; mask /= 2) {
                        dot += __shfl_xor_sync(0xffffffffu, dot, mask);
                    }
                    if (CAPPED) dot = cap * LOG2_E * tanhf(dot);
                    score[h][s] = mine + s * all_teams <= visible ? dot : __uint_as_float(0xff800000u);
                }
            }
            for (int h = 0; h < HEADS; h++) {
                float most = top[h];
                for (int s = 0; s < SLOTS; s++) most = score[h][s] > most ? score[h][s] : most;
                float shrink = exp2f(top[h] - most);
                top[h] = most;
                total[h] *= shrink;
                for (int i = 0; i < PACK; i++) sum[h][i] *= shrink;
                for (int s = 0; s < SLOTS; s++) {
                    score[h][s] = exp2f(score[h][s] - most);
                    total[h] += score[h][s];
                }
            }
            for (int s = 0; s < SLOTS; s++) {
                unpack(x, value[s]);
                for (int h = 0; h < HEADS; h++) {
                    for (int i = 0; i < PACK; i++) sum[h][i] += score[h][s] * x[i];
                }
            }
        }
        // Nobody reads the heads before any more.
        __syncthreads();
        for (int h = 0; h < HEADS; h++) {
            int at = h * all_teams + team;
            if (piece < PIECES) {
                for (int i = 0; i < PACK; i++) sums[at * WIDTH + piece * PACK + i] = sum[h][i];
            }
            if (piece == 0) {
                tops[at] = top[h];
                totals[at] = total[h];
            }
        }
        __syncthreads();
        for (int at = threadIdx.x; at < HEADS * WIDTH; at += blockDim.x) {
            int h = at / WIDTH, i = at % WIDTH;
            if (i >= dim) continue;
            const float *own_tops = tops + h * all_teams, *own_totals = totals + h * all_teams;
            float most = own_tops[0], total = 0.0f, sum = 0.0f;
            for (int t = 1; t < all_teams; t++) most = own_tops[t] > most ? own_tops[t] : most;
            for (int t = 0; t < all_teams; t++) {
                float share = exp2f(own_tops[t] - most);
                total += share * own_totals[t];
                sum += share * sums[(h * all_teams + t) * WIDTH + i];
            }
            store(y + ((row * kv_heads * GROUP) + head + h) * dim + i, sum / total);
        }
    }
}
