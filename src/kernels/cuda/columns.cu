// Sums over the rows of a matrix. X: its elements.

const i64 TILE = 32 * PACK;

// A block per tile of columns and slice of rows; row s of y gets, or where add is 1 grows by, the sums
// of slice s.
KERNEL(column_sums)(
    const X* x, float* y, i64 rows, i64 width, i64 distance, i64 slice, i64 add
) {
    SHARED;
    float* sums = (float*)shared;
    i64 warp = threadIdx.x / 32, warps = blockDim.x / 32;
    i64 tile = blockIdx.x * TILE, own = threadIdx.x % 32 * PACK, column = tile + own;
    i64 first = blockIdx.y * slice, end = first + slice < rows ? first + slice : rows;
    float sum[PACK] = {};
    if (column < width) {
        for (i64 row = first + warp; row < end; row += warps) {
            float v[PACK];
            load(v, x + row * distance + column, width - column);
            for (int k = 0; k < PACK; k++) sum[k] += v[k];
        }
    }
    for (int k = 0; k < PACK; k++) sums[warp * TILE + own + k] = sum[k];
    __syncthreads();
    for (i64 i = threadIdx.x; i < TILE && tile + i < width; i += blockDim.x) {
        float total = 0.0f;
        for (i64 w = 0; w < warps; w++) total += sums[w * TILE + i];
        float* to = y + blockIdx.y * width + tile + i;
        *to = add ? *to + total : total;
    }
}
