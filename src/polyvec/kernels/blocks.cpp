// Weights on their way from a file's blocks to products: expanded, rounded to int8, and laid out as
// oneDNN keeps them.
//
// Single-threaded, like rows.cpp. Block layouts are ggml's (ggml-org/llama.cpp, ggml-common.h).
// Compiled without fused multiply-add, so that a weight is the same number as everywhere else.

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "vectors.h"

namespace {

constexpr int64_t BLOCK = 64;  // outputs side by side in oneDNN's layout

float half(const uint8_t *at) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = bits & 0x7fff;
    uint32_t wide;
    if (rest >= 0x7c00) {
        wide = (rest << 13) | 0x7f800000;
    } else if (rest >= 0x0400) {
        wide = (rest << 13) + 0x38000000;
    } else {  // subnormal: a multiple of 2^-24
        const float small = float(rest) * 5.9604644775390625e-8f;
        std::memcpy(&wide, &small, sizeof wide);
    }
    wide |= sign;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

INLINE Floats floats(Bits x) { return __builtin_convertvector(Ints(x), Floats); }

INLINE Floats signed_bytes(const uint8_t *at) {
    return floats(Bits(Ints(widen(at) << 24) >> 24));
}

// The fifth bits of 16 codes, shifted to their place.
INLINE Bits fifth(const uint8_t *at, int start) {
    uint32_t word;
    std::memcpy(&word, at, sizeof word);
    return ((((Bits{} + word) >> Bits(IOTA)) >> start) & 1) << 4;
}

// Every decoder expands one block.

struct F32 {
    static constexpr int64_t SIZE = 16, BYTES = 64;
    INLINE void decode(const uint8_t *b, float *y) { std::memcpy(y, b, 64); }
};

struct F16 {
    static constexpr int64_t SIZE = 16, BYTES = 32;
    INLINE void decode(const uint8_t *b, float *y) {
        for (int64_t i = 0; i < 16; ++i) y[i] = half(b + 2 * i);
    }
};

struct BF16 {
    static constexpr int64_t SIZE = 16, BYTES = 32;
    INLINE void decode(const uint8_t *b, float *y) {
        store(load(reinterpret_cast<const Bf16 *>(b)), y);
    }
};

struct Q8_0 {
    static constexpr int64_t SIZE = 32, BYTES = 34;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b);
        store(d * signed_bytes(b + 2), y);
        store(d * signed_bytes(b + 18), y + 16);
    }
};

struct Q4_0 {
    static constexpr int64_t SIZE = 32, BYTES = 18;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b);
        const Bits codes = widen(b + 2);
        store(d * (floats(codes & 15) - 8.0f), y);
        store(d * (floats(codes >> 4) - 8.0f), y + 16);
    }
};

struct Q4_1 {
    static constexpr int64_t SIZE = 32, BYTES = 20;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b), least = half(b + 2);
        const Bits codes = widen(b + 4);
        store(d * floats(codes & 15) + least, y);
        store(d * floats(codes >> 4) + least, y + 16);
    }
};

struct Q5_0 {
    static constexpr int64_t SIZE = 32, BYTES = 22;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b);
        const Bits codes = widen(b + 6);
        store(d * (floats((codes & 15) | fifth(b + 2, 0)) - 16.0f), y);
        store(d * (floats((codes >> 4) | fifth(b + 2, 16)) - 16.0f), y + 16);
    }
};

struct Q5_1 {
    static constexpr int64_t SIZE = 32, BYTES = 24;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b), least = half(b + 2);
        const Bits codes = widen(b + 8);
        store(d * floats((codes & 15) | fifth(b + 4, 0)) + least, y);
        store(d * floats((codes >> 4) | fifth(b + 4, 16)) + least, y + 16);
    }
};

// A group's 6-bit scale and minimum, of Q4_K's and Q5_K's 12 bytes.
struct Group {
    float scale, least;
};

INLINE Group group(const uint8_t *b, int64_t i) {
    const uint8_t *s = b + 4;
    const float d = half(b), m = half(b + 2);
    if (i < 4) return {d * float(s[i] & 63), m * float(s[i + 4] & 63)};
    const int scale = (s[i + 4] & 15) | ((s[i - 4] >> 6) << 4);
    const int least = (s[i + 4] >> 4) | ((s[i] >> 6) << 4);
    return {d * float(scale), m * float(least)};
}

struct Q4_K {
    static constexpr int64_t SIZE = 256, BYTES = 144;
    INLINE void decode(const uint8_t *b, float *y) {
        for (int64_t i = 0; i < 8; ++i) {
            const Group g = group(b, i);
            const int shift = i & 1 ? 4 : 0;
            for (int64_t h = 0; h < 32; h += 16) {
                const Bits codes = (widen(b + 16 + 32 * (i / 2) + h) >> shift) & 15;
                store(g.scale * floats(codes) - g.least, y + 32 * i + h);
            }
        }
    }
};

struct Q5_K {
    static constexpr int64_t SIZE = 256, BYTES = 176;
    INLINE void decode(const uint8_t *b, float *y) {
        for (int64_t i = 0; i < 8; ++i) {
            const Group g = group(b, i);
            const int shift = i & 1 ? 4 : 0;
            for (int64_t h = 0; h < 32; h += 16) {
                const Bits low = (widen(b + 48 + 32 * (i / 2) + h) >> shift) & 15;
                const Bits high = ((widen(b + 16 + h) >> int(i)) & 1) << 4;
                store(g.scale * floats(low | high) - g.least, y + 32 * i + h);
            }
        }
    }
};

struct Q6_K {
    static constexpr int64_t SIZE = 256, BYTES = 210;
    INLINE void decode(const uint8_t *b, float *y) {
        const float d = half(b + 208);
        for (int64_t i = 0; i < 16; ++i) {  // 16 weights share a scale
            const int64_t part = i / 8, row = (i / 2) % 4, h = 16 * (i & 1);
            const uint8_t *low = b + 64 * part + 32 * (row & 1) + h;
            const Bits codes = (widen(low) >> (row < 2 ? 0 : 4)) & 15;
            const Bits high = ((widen(b + 128 + 32 * part + h) >> int(2 * row)) & 3) << 4;
            const float scale = float(int8_t(b[192 + i])) * d;
            store(scale * (floats(codes | high) - 32.0f), y + 16 * i);
        }
    }
};

template <class T>
void expand_row(const uint8_t *raw, int64_t width, float *y) {
    for (int64_t i = 0; i < width; i += T::SIZE, raw += T::BYTES) T::decode(raw, y + i);
}

struct Kind {
    void (*expand)(const uint8_t *, int64_t, float *);
    int64_t size, bytes;
};

template <class T>
constexpr Kind kind() {
    return {expand_row<T>, T::SIZE, T::BYTES};
}

// By ggml's numbers of types; an unknown one has no function.
Kind kind_of(int32_t type) {
    switch (type) {
        case 0: return kind<F32>();
        case 1: return kind<F16>();
        case 2: return kind<Q4_0>();
        case 3: return kind<Q4_1>();
        case 6: return kind<Q5_0>();
        case 7: return kind<Q5_1>();
        case 8: return kind<Q8_0>();
        case 12: return kind<Q4_K>();
        case 13: return kind<Q5_K>();
        case 14: return kind<Q6_K>();
        case 30: return kind<BF16>();
        default: return {nullptr, 1, 1};
    }
}

// Calls `use(row number, expanded row)` for each row; `order` says which raw row comes where.
template <class F>
INLINE int32_t each_row(int32_t type, const uint8_t *raw, const int64_t *order, int64_t rows,
                        int64_t width, F use) {
    const Kind k = kind_of(type);
    if (!k.expand || width % k.size || width > MAX_WIDTH) return 0;
    float row[MAX_WIDTH];
    for (int64_t t = 0; t < rows; ++t) {
        k.expand(raw + (order ? order[t] : t) * (width / k.size * k.bytes), width, row);
        use(t, row);
    }
    return 1;
}

// Four weights of each of four rows, turned so that a row's four become a column's.
INLINE void turn(const int8_t *x, int64_t stride, int8_t *y, int64_t step) {
#ifdef __SSE2__
    __m128i r[4];
    for (int64_t i = 0; i < 4; ++i)
        r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i * stride));
    const __m128i ab = _mm_unpacklo_epi32(r[0], r[1]), AB = _mm_unpackhi_epi32(r[0], r[1]);
    const __m128i cd = _mm_unpacklo_epi32(r[2], r[3]), CD = _mm_unpackhi_epi32(r[2], r[3]);
    const __m128i columns[4] = {_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd),
                                _mm_unpacklo_epi64(AB, CD), _mm_unpackhi_epi64(AB, CD)};
    for (int64_t i = 0; i < 4; ++i)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(y + i * step), columns[i]);
#else
    for (int64_t i = 0; i < 4; ++i)
        for (int64_t k = 0; k < 4; ++k) std::memcpy(y + i * step + 4 * k, x + k * stride + 4 * i, 4);
#endif
}

// The same where there are fewer rows, or none of them reach this far.
INLINE void turn_filled(const int8_t *x, int64_t rows, bool reached, int64_t stride, int8_t *y) {
    int8_t four[4 * LANES] = {};
    for (int64_t r = 0; r < 4 && r < rows && reached; ++r)
        std::memcpy(four + r * LANES, x + r * stride, LANES);
    turn(four, LANES, y, 4 * BLOCK);
}

int32_t sum(const int8_t *x, int64_t width) {
    int64_t all = 0, i = 0;
#ifdef __SSE2__
    const __m128i sign = _mm_set1_epi8(-128);  // unsigned bytes are 128 more
    __m128i total = _mm_setzero_si128();
    for (; i + 16 <= width; i += 16) {
        const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i));
        total = _mm_add_epi64(total, _mm_sad_epu8(_mm_xor_si128(part, sign), _mm_setzero_si128()));
    }
    int64_t halves[2];
    std::memcpy(halves, &total, sizeof halves);
    all = halves[0] + halves[1] - 128 * i;
#endif
    for (; i < width; ++i) all += x[i];
    return int32_t(all);
}

constexpr int64_t GROUP = 32;  // weights that share a multiplier
constexpr int32_t TOP = 7;     // of a 4-bit weight

// Rounds 32 rotated weights, in units of the row's int8 step, to `multiplier * code`.
INLINE uint8_t round_group(const float *x, uint8_t *codes) {
    const Floats a = load(x), b = load(x + LANES);
    const Floats x_a = a < 0.0f ? -a : a, x_b = b < 0.0f ? -b : b;
    const Floats largest = x_a > x_b ? x_a : x_b;
    float peak = 0.0f;
    for (int64_t i = 0; i < LANES; ++i) peak = largest[i] > peak ? largest[i] : peak;
    const int32_t full = int32_t(peak / float(TOP)) + 1;
    int32_t best = 1;
    float least = 3.4e38f;
    Floats best_a = {}, best_b = {};
    for (int32_t m = full > 5 ? full - 5 : 1; m <= full && m * TOP <= 127; ++m) {
        const float inverse = 1.0f / float(m);
        Floats q_a = (a * inverse + 12582912.0f) - 12582912.0f;
        Floats q_b = (b * inverse + 12582912.0f) - 12582912.0f;
        q_a = q_a > float(TOP) ? splat(float(TOP)) : q_a < -float(TOP) ? splat(-float(TOP)) : q_a;
        q_b = q_b > float(TOP) ? splat(float(TOP)) : q_b < -float(TOP) ? splat(-float(TOP)) : q_b;
        const Floats e_a = a - q_a * float(m), e_b = b - q_b * float(m);
        const float error = total(e_a * e_a + e_b * e_b);
        if (error < least) least = error, best = m, best_a = q_a, best_b = q_b;
    }
    const Ints low = __builtin_convertvector(best_a, Ints) + 8;
    const Ints high = __builtin_convertvector(best_b, Ints) + 8;
    store_bytes(Bits(low | (high << 4)), codes);
    return uint8_t(best);
}

// Rounds a rotated row to 4 bits; returns the scale.
INLINE float round_row(float *row, int64_t width, float unit, uint8_t *codes,
                       uint8_t *multipliers) {
    const float peak = peak_of(row, width);
    const float factor = peak > 0.0f ? 126.0f / peak : 0.0f;
    for (int64_t i = 0; i < width; i += LANES) store(load(row + i) * factor, row + i);
    for (int64_t i = 0; i < width; i += GROUP)
        multipliers[i / GROUP] = round_group(row + i, codes + i / 2);
    return peak * unit / 126.0f;
}

}  // namespace

// The exact weights, fp32. Returns 0 for a type or width these do not know.
EXPORT int32_t pv_expand_f32(int32_t type, const uint8_t *raw, const int64_t *order, int64_t rows,
                             int64_t width, float *y) {
    return each_row(type, raw, order, rows, width, [&](int64_t t, float *row) {
        std::memcpy(y + t * width, row, size_t(width) * sizeof(float));
    });
}

// The same, rounded to bf16.
EXPORT int32_t pv_expand_bf16(int32_t type, const uint8_t *raw, const int64_t *order,
                              int64_t rows, int64_t width, Bf16 *y) {
    return each_row(type, raw, order, rows, width, [&](int64_t t, float *row) {
        for (int64_t i = 0; i < width; i += LANES) store(load(row + i), y + t * width + i);
    });
}

// The same, rotated and rounded to int8 by each row's own scale.
EXPORT int32_t pv_expand_int8(int32_t type, const uint8_t *raw, const int64_t *order,
                              int64_t rows, int64_t width, const int32_t *radices, int32_t count,
                              float unit, int8_t *y, float *scale) {
    return each_row(type, raw, order, rows, width, [&](int64_t t, float *row) {
        rotate(row, width, Rotation{radices, count, unit});
        scale[t] = quantize(row, width, unit, y + t * width);
    });
}

// The same, rotated and rounded to 4 bits: weight = scale * multiplier of its 32 * code, and
// multiplier * code is an int8, so expanding again rounds nothing.
EXPORT int32_t pv_expand_int4(int32_t type, const uint8_t *raw, const int64_t *order,
                              int64_t rows, int64_t width, const int32_t *radices, int32_t count,
                              float unit, uint8_t *codes, uint8_t *multipliers, float *scale) {
    if (width % GROUP) return 0;
    return each_row(type, raw, order, rows, width, [&](int64_t t, float *row) {
        rotate(row, width, Rotation{radices, count, unit});
        scale[t] = round_row(row, width, unit, codes + t * (width / 2),
                             multipliers + t * (width / GROUP));
    });
}

// 4-bit weights to int8.
EXPORT void pv_int4_to_int8(const uint8_t *codes, const uint8_t *multipliers, int64_t groups,
                            int8_t *y) {
    for (int64_t g = 0; g < groups; ++g, codes += GROUP / 2, y += GROUP) {
        const Bits packed = widen(codes), times = Bits{} + multipliers[g];
        const Bits low = ((packed & 15) - 8) * times, high = ((packed >> 4) - 8) * times;
        store_bytes(low, y);
        store_bytes(high, y + LANES);
    }
}

// int8 rows as oneDNN keeps a weight: blocks of 64 outputs, four inputs of each side by side, both
// filled up with zeros to 64, and then each output's sum, negative.
EXPORT void pv_pack_int8(const int8_t *x, int64_t rows, int64_t width, int8_t *y) {
    const int64_t blocks = (rows + BLOCK - 1) / BLOCK, lines = (width + 63) / 64;
    int8_t *tail = y + blocks * BLOCK * lines * 64;
    for (int64_t b = 0; b < blocks; ++b, y += BLOCK * lines * 64)
        // Sixteen rows at a time fill whole cache lines of the layout.
        for (int64_t o = 0; o < BLOCK; o += LANES) {
            const int64_t left = rows - b * BLOCK - o;
            const int8_t *from = x + (b * BLOCK + o) * width;
            const int64_t whole = left >= LANES ? width / LANES * LANES : 0;
            for (int64_t i = 0; i < whole; i += LANES)
                for (int64_t r = 0; r < LANES; r += 4)
                    turn(from + r * width + i, width, y + i * BLOCK + 4 * (o + r), 4 * BLOCK);
            for (int64_t i = whole; i < lines * 64; i += LANES)
                for (int64_t r = 0; r < LANES; r += 4)
                    turn_filled(from + r * width + i, left - r, i < width, width,
                                y + i * BLOCK + 4 * (o + r));
            for (int64_t r = 0; r < LANES; ++r) {
                const int32_t taken = r < left ? -sum(from + r * width, width) : 0;
                std::memcpy(tail + 4 * (b * BLOCK + o + r), &taken, sizeof taken);
            }
        }
}
