// Moves numbers towards others. A: their type.

KERNEL(mix)(A* own, const A* other, float share, float rest, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float x[PACK], y[PACK];
        load(x, own + i, n - i);
        load(y, other + i, n - i);
        for (int k = 0; k < PACK; k++) x[k] = y[k] * share + x[k] * rest;
        store(own + i, x, n - i);
    }
}
