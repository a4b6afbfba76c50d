// cuBLAS, by columns: sums in f32, one term after the other.

namespace {

struct Blas {
    int mode;
    size_t workspace;
};

float widen(const void* values, int type, size_t at) {
    if (type == 0) return ((const float*)values)[at];
    uint32_t bits = (uint32_t)((const uint16_t*)values)[at] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

void put(void* values, int type, size_t at, float x) {
    if (type == 0) {
        ((float*)values)[at] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    ((uint16_t*)values)[at] =
        x != x ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

size_t width(int type) { return type == 0 ? 4 : 2; }

}  // namespace

API int cublasCreate_v2(void** handle) { return *handle = new Blas{0, 0}, 0; }
API int cublasDestroy_v2(void* handle) { return delete (Blas*)handle, 0; }
API int cublasGetVersion_v2(void*, int* version) { return *version = 130099, 0; }
API int cublasSetStream_v2(void*, void*) { return 0; }
API int cublasSetMathMode(void* handle, int mode) { return ((Blas*)handle)->mode = mode, 0; }
API int cublasSetWorkspace_v2(void* handle, void* at, size_t bytes) {
    bool serves = (uint64_t)at % 256 == 0 && bytes > 0 && inside((uint64_t)at, bytes);
    if (!serves) return fail(7, "cublasSetWorkspace: not a device's memory");
    return ((Blas*)handle)->workspace = bytes, 0;
}
API int cublasGemmEx(
    void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
    int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c,
    int ldc, int compute, int
) {
    // CUDA_R_32F is 0, CUDA_R_16BF 14; CUBLAS_COMPUTE_32F is 68.
    bool types = (type_a == 0 && type_b == 0 && type_c == 0)
        || (type_a == 14 && type_b == 14 && (type_c == 14 || type_c == 0));
    int rows_a = transpose_a ? k : m, rows_b = transpose_b ? n : k;
    if (!types || compute != 68 || lda < rows_a || ldb < rows_b || ldc < m || lda < 1 || ldb < 1)
        return fail(7, "cublasGemmEx: an argument that cuBLAS refuses");
    auto last = [](int rows, int columns, int leading) {
        return rows && columns ? (size_t)leading * (columns - 1) + rows : 0;
    };
    bool fits = inside((uint64_t)a, last(rows_a, transpose_a ? m : k, lda) * width(type_a))
        && inside((uint64_t)b, last(rows_b, transpose_b ? k : n, ldb) * width(type_b))
        && inside((uint64_t)c, last(m, n, ldc) * width(type_c));
    if (!fits) return fail(7, "cublasGemmEx: a matrix outside its allocation");
    if (bound("cublasGemmEx")) return 1;
    // CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION.
    if (((Blas*)handle)->mode != 16 || !((Blas*)handle)->workspace)
        return fail(7, "cublasGemmEx: sums in bf16 are allowed, or there is no workspace");
    float scale = *(const float*)alpha, keep = *(const float*)beta;
    return give([=] {
        std::vector<float> left((size_t)m * k), column(m);
        for (int i = 0; i < k; i++)
            for (int row = 0; row < m; row++)
                left[(size_t)i * m + row] =
                    widen(a, type_a, transpose_a ? (size_t)row * lda + i : (size_t)i * lda + row);
        for (int j = 0; j < n; j++) {
            std::fill(column.begin(), column.end(), 0.0f);
            for (int i = 0; i < k; i++) {
                float x = widen(b, type_b, transpose_b ? (size_t)i * ldb + j : (size_t)j * ldb + i);
                const float* from = &left[(size_t)i * m];
                for (int row = 0; row < m; row++) column[row] += from[row] * x;
            }
            for (int row = 0; row < m; row++) {
                size_t at = (size_t)j * ldc + row;
                float before = keep != 0 ? keep * widen(c, type_c, at) : 0;
                put(c, type_c, at, scale * column[row] + before);
            }
        }
        return 0;
    });
}
