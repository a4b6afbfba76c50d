// Rows of a table by id. S: the elements that are read; D: those that are written.

// A warp per row.
KERNEL(gather)(const S* table, const u32* ids, D* rows, i64 count, i64 width, i64 distance) {
    for (i64 row = thread_index() / 32; row < count; row += thread_count() / 32) {
        const S* from = table + ids[row] * distance;
        for (i64 i = threadIdx.x % 32 * PACK; i < width; i += 32 * PACK) {
            float v[PACK];
            load(v, from + i, width - i);
            store(rows + row * width + i, v, width - i);
        }
    }
}

// Run r, of rows with one id, is order[starts[r]..starts[r + 1]]. A block per run and piece of a row,
// so that no two write to one place, and every sum goes in the order of rows.
KERNEL(scatter_add)(
    const S* dy, const u32* ids, const u32* order, const u32* starts, D* table, i64 width, i64 distance
) {
    i64 i = ((i64)blockIdx.y * blockDim.x + threadIdx.x) * PACK;
    if (i >= width) return;
    u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    D* to = table + (i64)ids[order[first]] * width + i;
    float sum[PACK], v[PACK];
    load(sum, to, width - i);
    for (u32 at = first; at < end; at++) {
        load(v, dy + order[at] * distance + i, width - i);
        for (int k = 0; k < PACK; k++) sum[k] += v[k];
    }
    store(to, sum, width - i);
}
