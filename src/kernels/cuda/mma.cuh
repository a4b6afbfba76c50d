// Products of small matrices by a warp, in registers, with sums in f32; and copies to shared memory
// that go on beside other work.
//
// For bf16 they are the tensor cores' m16n8k16. For float the same fragments go through shuffles:
// exact products, many times slower. Lanes come to all of these together, after a __syncwarp() where
// they may have taken different ways. Matrices in shared memory lie by rows, STRIDE elements apart,
// that begin at multiples of 16 bytes. In a fragment lane 4 g + t holds of the sum rows g and g + 8 and
// columns 2 t and 2 t + 1; of the left operand those rows, columns 2 t + {0, 1, 8, 9}; of the right
// one rows 2 t + {0, 1, 8, 9}, column g.

// What shuffles multiply is not unrolled: the text would grow to minutes of compilation.
#ifdef EMULATOR
#define UNROLL
#define UNROLL_SOME
#define UNROLL_EIGHT
#define ROLLED
#else
#define UNROLL _Pragma("unroll")
// All of it where heads are of 128 or less; more would take registers that are not there.
#define UNROLL_EIGHT _Pragma("unroll 8")
#define UNROLL_SOME _Pragma("unroll (sizeof(A) == 2 && HEAD_DIM <= 192 ? 4 : 1)")
#define ROLLED _Pragma("unroll 1")
#endif

// Two neighbours.
template <class T>
struct Two;
template <>
struct Two<bf16> {
    u32 bits;
};
template <>
struct __align__(8) Two<float> {
    float x, y;
};

INLINE float low(Two<bf16> x) { return __uint_as_float(x.bits << 16); }
INLINE float high(Two<bf16> x) { return __uint_as_float(x.bits & 0xffff0000u); }
INLINE float low(Two<float> x) { return x.x; }
INLINE float high(Two<float> x) { return x.y; }

INLINE void join(Two<float>* to, float low, float high) {
    to->x = low;
    to->y = high;
}
INLINE void join(Two<bf16>* to, float low, float high) { to->bits = nearest_two(low, high); }

// 16 x 16: rows g and g + 8 of the first 8 columns, then of the last.
template <class T>
struct Left {
    Two<T> x[4];
};
// 16 x 8.
template <class T>
struct Right {
    Two<T> x[2];
};

template <class T>
struct Operands {
    Left<T> a;
    Right<T> b;
};

// Operands as other lanes have them.
#ifdef EMULATOR
template <class T>
INLINE const Operands<T>* everywhere(const Operands<T>& mine) { return emulator::lanes(mine); }
template <class T, class P>
INLINE P of_lane(const Operands<T>* all, P Operands<T>::* part, u32 lane) { return all[lane].*part; }
#else
template <class T>
INLINE Operands<T> everywhere(const Operands<T>& mine) { return mine; }
template <class T, class P>
INLINE P of_lane(const Operands<T>& mine, P Operands<T>::* part, u32 lane) {
    P value;
    UNROLL for (u32 i = 0; i < sizeof(P) / 4; i++) {
        ((u32*)&value)[i] = __shfl_sync(0xffffffffu, ((const u32*)&(mine.*part))[i], lane);
    }
    return value;
}
#endif

// sum += a b, as the tensor cores' fragments are defined.
template <class T>
INLINE void multiply(float (&sum)[4], const Left<T>& a, const Right<T>& b) {
    auto all = everywhere(Operands<T>{a, b});
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    ROLLED for (u32 from = 0; from < 4; from++) {
        Left<T> row = of_lane(all, &Operands<T>::a, 4 * g + from);
        Right<T> columns[2] = {
            of_lane(all, &Operands<T>::b, 8 * t + from),
            of_lane(all, &Operands<T>::b, 8 * t + 4 + from),
        };
        UNROLL for (int i = 0; i < 4; i++) UNROLL for (int half = 0; half < 2; half++) {
            Two<T> x = row.x[i / 2 + 2 * half], y = columns[i % 2].x[half];
            sum[i] += low(x) * low(y);
            sum[i] += high(x) * high(y);
        }
    }
}

#ifndef EMULATOR
INLINE void multiply(float (&sum)[4], const Left<bf16>& a, const Right<bf16>& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.x[0].bits), "r"(a.x[1].bits), "r"(a.x[2].bits), "r"(a.x[3].bits),
          "r"(b.x[0].bits), "r"(b.x[1].bits));
}

INLINE u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }
#endif

// Four 8 x 8 matrices, or their transposes: lane 8 i + r says where row r of matrix i is, and lane
// 4 g + t gets columns 2 t and 2 t + 1 of row g.
template <bool TRANSPOSED>
INLINE void load_matrices(Two<bf16>* x0, Two<bf16>* x1, Two<bf16>* x2, Two<bf16>* x3, const bf16* row) {
#ifdef EMULATOR
    const bf16* const* rows = emulator::lanes(row);
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    Two<bf16>* x[4] = {x0, x1, x2, x3};
    for (u32 i = 0; i < 4; i++, rows += 8) {
        bf16 low = TRANSPOSED ? rows[2 * t][g] : rows[g][2 * t];
        bf16 high = TRANSPOSED ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
        x[i]->bits = (u32)low.bits | (u32)high.bits << 16;
    }
#else
    if (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x0->bits), "=r"(x1->bits), "=r"(x2->bits), "=r"(x3->bits)
                     : "r"(shared_address(row)) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x0->bits), "=r"(x1->bits), "=r"(x2->bits), "=r"(x3->bits)
                     : "r"(shared_address(row)) : "memory");
    }
#endif
}

// The 16 x 16 elements at `at` as a left operand.
template <int STRIDE>
INLINE void load_left(Left<bf16>& a, const bf16* at) {
    u32 lane = threadIdx.x % 32;
    load_matrices<false>(&a.x[0], &a.x[1], &a.x[2], &a.x[3], at + lane % 16 * STRIDE + lane / 16 * 8);
}
template <int STRIDE>
INLINE void load_left(Left<float>& a, const float* at) {
    at += threadIdx.x % 32 / 4 * STRIDE + threadIdx.x % 4 * 2;
    UNROLL for (int i = 0; i < 4; i++) a.x[i] = *(const Two<float>*)(at + i % 2 * 8 * STRIDE + i / 2 * 8);
}

// The transpose of the 16 x 16 elements at `at` as two right operands, side by side.
template <int STRIDE>
INLINE void load_transposed(Right<bf16> (&b)[2], const bf16* at) {
    u32 lane = threadIdx.x % 32;
    at += (lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * 8;
    load_matrices<false>(&b[0].x[0], &b[0].x[1], &b[1].x[0], &b[1].x[1], at);
}
template <int STRIDE>
INLINE void load_transposed(Right<float> (&b)[2], const float* at) {
    at += threadIdx.x % 32 / 4 * STRIDE + threadIdx.x % 4 * 2;
    UNROLL for (int i = 0; i < 4; i++) b[i / 2].x[i % 2] = *(const Two<float>*)(at + i / 2 * 8 * STRIDE + i % 2 * 8);
}

// The 16 x 16 elements at `at` as two right operands, side by side.
template <int STRIDE>
INLINE void load_right(Right<bf16> (&b)[2], const bf16* at) {
    u32 lane = threadIdx.x % 32;
    at += lane % 16 * STRIDE + lane / 16 * 8;
    load_matrices<true>(&b[0].x[0], &b[0].x[1], &b[1].x[0], &b[1].x[1], at);
}
template <int STRIDE>
INLINE void load_right(Right<float> (&b)[2], const float* at) {
    at += threadIdx.x % 4 * 2 * STRIDE + threadIdx.x % 32 / 4;
    UNROLL for (int i = 0; i < 4; i++) {
        const float* low = at + i % 2 * 8 * STRIDE + i / 2 * 8;
        b[i / 2].x[i % 2] = Two<float>{low[0], low[STRIDE]};
    }
}

// 16 bytes to shared memory, zeros in place of the elements behind the last of `left`; they are there
// after copies_arrived().
template <class T>
INLINE void copy_to_shared(T* to, const T* from, int left) {
    const int N = 16 / sizeof(T);
    left = left < 0 ? 0 : left < N ? left : N;
#ifndef EMULATOR
    if ((u64)from % 16 == 0) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(left * (int)sizeof(T)) : "memory");
        return;
    }
#endif
    for (int i = 0; i < N; i++) {
        if (i < left) to[i] = from[i];
        else store(to + i, 0.0f);
    }
}

// After it every thread of the block sees what all of them copied.
INLINE void copies_arrived() {
#ifndef EMULATOR
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
    __syncthreads();
}
