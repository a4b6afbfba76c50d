// Draws of next tokens, as model/sampling.rs has them, in double. A block per sequence; each of its
// warps, two or more, takes a piece of the vocabulary.

const int CUTS = 7;

struct Row {
    const float* z;
    const u32* seen;
    i64 n;
    double penalty, temperature;
};

// What is drawn from: keys from `key` on, and of those that are equal to it the ids up to `last`.
// Where `ties` is set, these alone, and each weighs 1.
struct Kept {
    u64 key;
    i64 last;
    double top;
    bool ties;
};

INLINE double processed(const Row& row, i64 i) {
    double x = row.z[i];
    if (row.penalty != 1.0 && (row.seen[i / 32] >> i % 32 & 1)) {
        x = x < 0.0 ? x * row.penalty : x / row.penalty;
    }
    return row.temperature == 1.0 ? x : x / row.temperature;
}

INLINE bool can_be(double x) { return x - x == 0.0; }

// Numbers in the order of their keys, -0 in front of 0.
INLINE u64 key_of(double x) {
    u64 bits = (u64)__double_as_longlong(x);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

INLINE double value_of(u64 key) {
    return __longlong_as_double((i64)(key >> 63 ? key & ~(1ull << 63) : ~key));
}

// The key of the number's value: -0 is 0.
INLINE u64 plain_key_of(double x) { return key_of(x + 0.0); }

// Negative: not drawn from.
INLINE double weight(const Row& row, const Kept& kept, i64 i) {
    double x = processed(row, i);
    u64 key = key_of(x);
    if (!can_be(x) || key < kept.key || (key == kept.key && i > kept.last)) return -1.0;
    if (kept.ties) return key == kept.key ? 1.0 : -1.0;
    return exp(x - kept.top);
}

INLINE u64 block_largest(u64 x, u64* scratch) {
    for (int mask = 16; mask > 0; mask /= 2) {
        u64 other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = other > x ? other : x;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    u64 most = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) most = scratch[warp] > most ? scratch[warp] : most;
    return most;
}

// How many elements of `n` each warp takes: of more than 32, not all.
INLINE i64 share_of(i64 n) {
    i64 warps = blockDim.x / 32;
    return (n + warps * 32 - 1) / (warps * 32) * 32;
}

struct Piece {
    i64 first, last;
};

// The warp's piece of the elements from `first` to `last`; its lanes take every 32nd.
INLINE Piece piece(i64 first, i64 last, i64 share) {
    i64 from = first + (i64)(threadIdx.x / 32) * share, to = from + share;
    Piece mine = {(from < last ? from : last) + threadIdx.x % 32, to < last ? to : last};
    return mine;
}

// The first id at which the weights up to it are more than `goal`, or `goal` of all where `relative`;
// the last id that has a weight where that is not found. `total` becomes the sum of all weights.
INLINE i64 search(const Row& row, const Kept& kept, double goal, bool relative, double* total, double* scratch) {
    i64 first = 0, last = row.n;
    bool whole = true;
    do {
        i64 share = share_of(last - first);
        Piece mine = piece(first, last, share);
        double sum = 0.0;
        int any = 0;
        for (i64 i = mine.first; i < mine.last; i += 32) {
            double w = weight(row, kept, i);
            if (w >= 0.0) {
                sum += w;
                any = 1;
            }
        }
        sum = warp_sum(sum);
        any = __ballot_sync(0xffffffffu, any) != 0;
        __syncthreads();
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = any ? sum : -1.0;
        __syncthreads();
        if (whole) {
            double all = 0.0;
            for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
                if (scratch[warp] > 0.0) all += scratch[warp];
            }
            *total = all;
            if (relative) goal *= all;
            whole = false;
        }
        i64 found = 0;
        double before = 0.0, up_to = 0.0;
        for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
            if (scratch[warp] < 0.0) continue;
            found = warp;
            before = up_to;
            up_to += scratch[warp];
            if (goal < up_to) break;
        }
        goal -= before;
        first += found * share;
        last = first + share < last ? first + share : last;
    } while (last - first > 32);
    __syncthreads();
    if (threadIdx.x == 0) {
        i64 id = first;
        for (i64 i = first; i < last; i++) {
            double w = weight(row, kept, i);
            if (w < 0.0) continue;
            id = i;
            goal -= w;
            if (goal < 0.0) break;
        }
        scratch[0] = (double)id;
    }
    __syncthreads();
    return (i64)scratch[0];
}

// Keys from `low` on reach the goal, those from `high` on, which weigh `above`, do not; `inside` are
// between the two.
struct Bracket {
    u64 low, high;
    double above;
    i64 inside;
};

// Narrows the bracket until keys from `low` on are just those that reach the goal, up to ties. An
// element weighs its mass, or without MASS, where -0 is 0, one.
template <bool MASS>
INLINE Bracket narrow(const Row& row, Bracket bracket, double goal, double top, double* scratch) {
    i64 share = share_of(row.n);
    Piece mine = piece(0, row.n, share);
    // In turn evenly between values, which finds most ends soon, and between keys, which finds all.
    for (bool even = true; bracket.high - bracket.low > 1 && bracket.inside > 1; even = !even) {
        if (!MASS && bracket.above + (double)bracket.inside == goal) break;
        u64 cuts[CUTS], step = (bracket.high - bracket.low) / (CUTS + 1);
        double from = value_of(bracket.low), width = value_of(bracket.high - 1) - from;
        for (int c = 0; c < CUTS; c++) {
            u64 cut = even ? key_of(from + width * ((c + 1.0) / (CUTS + 1)))
                           : bracket.low + (step > 0 ? step : 1) * (c + 1);
            cut = cut > bracket.low ? cut : bracket.low;
            cuts[c] = cut < bracket.high ? cut : bracket.high;
        }
        double weights[CUTS];
        i64 counts[CUTS];
        for (int c = 0; c < CUTS; c++) {
            weights[c] = 0.0;
            counts[c] = 0;
        }
        for (i64 i = mine.first; i < mine.last; i += 32) {
            double x = processed(row, i);
            u64 key = MASS ? key_of(x) : plain_key_of(x);
            if (!can_be(x) || key < bracket.low || key >= bracket.high) continue;
            double w = MASS ? exp(x - top) : 0.0;
            for (int c = 0; c < CUTS; c++) {
                weights[c] += key >= cuts[c] ? w : 0.0;
                counts[c] += key >= cuts[c];
            }
        }
        i64 upper = 0, lower = bracket.inside;
        double above = bracket.above;
        u64 low = bracket.low, high = bracket.high;
        bool open = true;
        for (int c = 0; c < CUTS; c++) {
            i64 count = block_sum(counts[c], (i64*)scratch);
            double w = bracket.above + (MASS ? block_sum(weights[c], scratch) : (double)count);
            if (open && w >= goal) {
                low = cuts[c];
                lower = count;
            } else if (open) {
                high = cuts[c];
                above = w;
                upper = count;
                open = false;
            }
        }
        Bracket next = {low, high, above, lower - upper};
        bracket = next;
    }
    return bracket;
}

// `slots`: where each row's sequence has what it has seen. `uniforms`: in [0, 1). `out`: id and log-prob.
KERNEL(choose)(
    const float* logits, u32* all_seen, const u32* slots, const double* uniforms, double* out,
    i64 vocabulary, i64 words, i64 greedy, double penalty, double temperature, i64 top_k, double top_p,
    double min_p
) {
    SHARED;
    double* scratch = (double*)shared;
    double uniform = uniforms[blockIdx.x];
    out += (i64)blockIdx.x * 2;
    u32* seen = all_seen ? all_seen + slots[blockIdx.x] * words : nullptr;
    Row row = {logits + blockIdx.x * vocabulary, seen, vocabulary, penalty, temperature};
    Piece mine = piece(0, vocabulary, share_of(vocabulary));
    float max = __uint_as_float(0xff800000u);
    u64 most = 0, least = 0;
    i64 possible = 0, odd = 0;
    for (i64 i = mine.first; i < mine.last; i += 32) {
        float z = row.z[i];
        max = z > max ? z : max;
        odd += !(z < __uint_as_float(0x7f800000u));
        double x = processed(row, i);
        if (can_be(x)) {
            u64 key = plain_key_of(x);
            most = key > most ? key : most;
            least = ~key > least ? ~key : least;
            possible++;
        }
    }
    max = block_max(max, (float*)scratch);
    most = block_largest(most, (u64*)scratch);
    least = ~block_largest(least, (u64*)scratch);
    possible = block_sum(possible, (i64*)scratch);
    odd = block_sum(odd, (i64*)scratch);
    double top = value_of(most);
    Kept kept = {0, vocabulary, top, false};
    if (greedy && possible) {
        // The first of the largest: -0 is as large as 0.
        kept.key = most == key_of(0.0) ? most - 1 : most;
    } else if (possible > top_k && top_k > 0 && top_k < vocabulary) {
        Bracket bracket = {least, most + 1, 0.0, possible};
        kept.key = narrow<false>(row, bracket, (double)top_k, top, scratch).low;
        if (kept.key == key_of(0.0)) kept.key--;
    }
    if (!greedy && possible && top_p < 1.0) {
        // All that is less likely than this is not as much as what is left out.
        u64 low = key_of(top + log((1.0 - top_p) / vocabulary) - 1.0);
        low = low > kept.key ? low : kept.key;
        double total = 0.0;
        i64 inside = 0;
        for (i64 i = mine.first; i < mine.last; i += 32) {
            double w = weight(row, kept, i);
            if (w >= 0.0) {
                total += w;
                inside += key_of(processed(row, i)) >= low;
            }
        }
        double goal = top_p * block_sum(total, scratch);
        Bracket bracket = {low, most + 1, 0.0, block_sum(inside, (i64*)scratch)};
        bracket = narrow<true>(row, bracket, goal, top, scratch);
        kept.key = bracket.low;
        // Of several that are as likely, the first that reach the goal.
        double ties = ceil((goal - bracket.above) / exp(value_of(bracket.low) - top));
        if (bracket.inside > 1 && ties < (double)bracket.inside) {
            double all;
            kept.ties = true;
            kept.last = search(row, kept, (ties > 1.0 ? ties : 1.0) - 0.5, false, &all, scratch);
            kept.ties = false;
        }
    }
    if (!greedy && possible && min_p > 0.0) {
        u64 low = key_of(top + log(min_p));
        if (low > kept.key) {
            kept.key = low;
            kept.last = vocabulary;
        }
    }
    double total;
    i64 id = search(row, kept, greedy ? 0.0 : uniform, !greedy, &total, scratch);
    bool itself = penalty == 1.0 && temperature == 1.0 && kept.key == 0 && odd == 0;
    if (!itself) {
        // The model's own log-prob, whatever is drawn from.
        total = 0.0;
        for (i64 i = mine.first; i < mine.last; i += 32) total += exp((double)row.z[i] - max);
        total = block_sum(total, scratch);
    }
    if (threadIdx.x == 0) {
        out[0] = (double)id;
        out[1] = (double)row.z[id] - max - log(total);
        if (seen) seen[id / 32] |= 1u << id % 32;
    }
}
