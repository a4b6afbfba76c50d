// Frozen matrices in few bits, read back. A: the elements that are written.
//
// Products and sums are rounded each, not fused, as where the formats come from. Codes are read in words:
// their memory is a whole number of them.

// The code of bytes that lie in words.
INLINE u32 byte_at(const u32* words, i64 i) { return words[i / 4] >> i % 4 * 8 & 255; }

// Of a byte's two codes the first is in the high half.
INLINE u32 nibble_at(const u32* words, i64 i) { return byte_at(words, i / 2) >> (i % 2 ? 0 : 4) & 15; }

// An f16 that is finite, by its bits: those of an f32 whose exponent is 112 less.
INLINE float half_to_float(u16 bits) {
    u32 sign = (u32)(bits & 0x8000) << 16, rest = (u32)(bits & 0x7fff) << 13;
    return __uint_as_float(sign | rest) * 5192296858534827628530496329220096.0f;
}

struct Plain {
    const float* scales;
};

INLINE float scale_of(const Plain& x, i64 block) { return x.scales[block]; }

struct Double {
    const u32* codes;
    const float* nested;
    const float* map;
    float offset;
};

INLINE float scale_of(const Double& x, i64 block) {
    return __fadd_rn(__fmul_rn(x.map[byte_at(x.codes, block)], x.nested[block / 256]), x.offset);
}

// Elements first .. first + n of blocks of 64.
template <class Scales>
INLINE void nf4_of(const u32* codes, const float* map, Scales scales, A* out, i64 first, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        i64 at = first + i;
        float x[PACK];
        if (at % PACK == 0) {
            // A word of codes, all of one block.
            u32 word = codes[at / PACK];
            float scale = scale_of(scales, at / 64);
            for (int k = 0; k < PACK; k++) {
                u32 code = word >> (k / 2 * 8 + (k % 2 ? 0 : 4)) & 15;
                x[k] = __fmul_rn(map[code], scale);
            }
        } else {
            for (int k = 0; k < PACK; k++) {
                x[k] = 0.0f;
                if (i + k < n) x[k] = __fmul_rn(map[nibble_at(codes, at + k)], scale_of(scales, (at + k) / 64));
            }
        }
        store(out + i, x, n - i);
    }
}

KERNEL(nf4)(const u32* codes, const float* map, const float* scales, A* out, i64 first, i64 n) {
    nf4_of(codes, map, Plain{scales}, out, first, n);
}

KERNEL(nf4_double)(
    const u32* codes, const float* map, const u32* scale_codes, const float* nested, const float* scale_map,
    float offset, A* out, i64 first, i64 n
) {
    nf4_of(codes, map, Double{scale_codes, nested, scale_map, offset}, out, first, n);
}

// Elements first .. first + n of blocks of 32.
KERNEL(q8_0)(const u32* codes, const u16* scales, A* out, i64 first, i64 n) {
    for (i64 i = thread_index() * PACK; i < n; i += thread_count() * PACK) {
        float x[PACK];
        for (int k = 0; k < PACK; k++) {
            i64 at = first + i + k;
            x[k] = 0.0f;
            if (i + k < n) {
                int code = (int)(byte_at(codes, at) ^ 128) - 128;
                x[k] = __fmul_rn((float)code, half_to_float(scales[at / 32]));
            }
        }
        store(out + i, x, n - i);
    }
}
