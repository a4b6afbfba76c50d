// Rotary position embedding in place. A: the elements' type.

// A warp per token: elements i and half + i of every head turn by the token's angle i, forward or,
// where direction is -1, back. head and token: distances from one to the next.
KERNEL(turn)(
    A* x, const float* cos, const float* sin, i64 tokens, i64 heads, i64 half, i64 token, i64 head,
    float direction
) {
    u32 packs = (u32)(half + PACK - 1) / PACK, count = (u32)heads * packs;
    for (i64 row = thread_index() / 32; row < tokens; row += thread_count() / 32) {
        for (u32 at = threadIdx.x % 32; at < count; at += 32) {
            i64 i = at % packs * PACK, left = half - i;
            A* first = x + row * token + at / packs * head + i;
            A* second = first + half;
            float a[PACK], b[PACK], c[PACK], s[PACK];
            load(a, first, left);
            load(b, second, left);
            load(c, cos + row * half + i, left);
            load(s, sin + row * half + i, left);
            for (int k = 0; k < PACK; k++) {
                float x = a[k], y = b[k];
                a[k] = x * c[k] - direction * s[k] * y;
                b[k] = y * c[k] + direction * s[k] * x;
            }
            store(first, a, left);
            store(second, b, left);
        }
    }
}
