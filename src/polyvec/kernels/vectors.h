// Vectors of 16 floats, the rotation and the rounding that every kernel shares.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int64_t LANES = 16;  // also the unit a rotation moves: rotation.py's LANES
constexpr int64_t MAX_WIDTH = 1 << 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint8_t Bytes __attribute__((vector_size(16)));

struct Bf16 {
    uint16_t bits;
};

INLINE Floats load(const float *x) {
    Floats y;
    std::memcpy(&y, x, sizeof y);
    return y;
}

INLINE Floats load(const Bf16 *x) {
    Halves halves;
    std::memcpy(&halves, x, sizeof halves);
    return Floats(__builtin_convertvector(halves, Bits) << 16);
}

INLINE void store(Floats x, float *y) { std::memcpy(y, &x, sizeof x); }

// Rounds to nearest even, as torch does; a NaN stays one.
INLINE void store(Floats x, Bf16 *y) {
#ifdef __AVX512BF16__
    const __m256bh halves = _mm512_cvtneps_pbh(__m512(x));
#else
    const Bits bits = Bits(x);
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Halves halves =
        __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 + 0 * bits : rounded,
                                Halves);
#endif
    std::memcpy(y, &halves, sizeof halves);
}

// 16 bytes as numbers. GCC's own conversions between vectors of different lanes go through memory.
INLINE Bits widen(const uint8_t *x) {
    Bits y;
#if defined(__AVX512F__)
    y = Bits(_mm512_maskz_cvtepu8_epi32(
        0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i *>(x))));
#elif defined(__AVX2__)
    const __m256i halves[2] = {
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(x))),
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(x + 8)))};
    std::memcpy(&y, halves, sizeof y);
#else
    Bytes packed;
    std::memcpy(&packed, x, sizeof packed);
    y = __builtin_convertvector(packed, Bits);
#endif
    return y;
}

// The lowest bytes of 16 numbers.
INLINE void store_bytes(Bits x, void *y) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, __m512i(x));
#elif defined(__AVX2__)
    x &= 255;
    __m256i halves[2];
    std::memcpy(halves, &x, sizeof halves);
    const __m256i words = _mm256_packus_epi32(halves[0], halves[1]);
    const __m256i mixed = _mm256_packus_epi16(words, words);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
    const __m128i bytes = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(mixed, order));
#else
    const Bytes bytes = __builtin_convertvector(x, Bytes);
#endif
    std::memcpy(y, &bytes, sizeof bytes);
}

INLINE Floats splat(float x) { return Floats{} + x; }

INLINE float total(Floats x) {
    float sum = 0.0f;
    for (int64_t i = 0; i < LANES / 2; ++i) sum += x[i] + x[i + LANES / 2];
    return sum;
}

// One stage of a rotation: every `RADIX` vectors that lie `stride` apart are mixed, by Hadamard's
// matrix (2 and 4) or Householder's I - (2 / RADIX) J (odd ones).
template <int64_t RADIX>
INLINE void stage(float *x, int64_t width, int64_t stride) {
    for (int64_t start = 0; start < width; start += stride * RADIX)
        for (float *at = x + start; at < x + start + stride; at += LANES) {
            Floats v[RADIX];
            for (int64_t k = 0; k < RADIX; ++k) v[k] = load(at + k * stride);
            if constexpr (RADIX == 2) {
                store(v[0] + v[1], at);
                store(v[0] - v[1], at + stride);
            } else if constexpr (RADIX == 4) {
                const Floats ab = v[0] + v[1], a_b = v[0] - v[1];
                const Floats cd = v[2] + v[3], c_d = v[2] - v[3];
                store(ab + cd, at);
                store(a_b + c_d, at + stride);
                store(ab - cd, at + 2 * stride);
                store(a_b - c_d, at + 3 * stride);
            } else {
                Floats sum = v[0];
                for (int64_t k = 1; k < RADIX; ++k) sum += v[k];
                sum *= 2.0f / float(RADIX);
                for (int64_t k = 0; k < RADIX; ++k) store(v[k] - sum, at + k * stride);
            }
        }
}

#if defined(__clang__)
#define SWAPPED(x, n)                                                                            \
    __builtin_shufflevector(x, x, 0 ^ n, 1 ^ n, 2 ^ n, 3 ^ n, 4 ^ n, 5 ^ n, 6 ^ n, 7 ^ n, 8 ^ n, \
                            9 ^ n, 10 ^ n, 11 ^ n, 12 ^ n, 13 ^ n, 14 ^ n, 15 ^ n)
#else
#define SWAPPED(x, n) __builtin_shuffle(x, IOTA ^ n)
#endif

constexpr Ints IOTA = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Hadamard's 16x16 within a vector: a stage adds the lane that is `n` away, or takes itself from it.
INLINE Floats mixed(Floats x) {
    const Floats one = splat(1.0f), minus = splat(-1.0f);
    x = x * ((IOTA & 1) ? minus : one) + SWAPPED(x, 1);
    x = x * ((IOTA & 2) ? minus : one) + SWAPPED(x, 2);
    x = x * ((IOTA & 4) ? minus : one) + SWAPPED(x, 4);
    return x * ((IOTA & 8) ? minus : one) + SWAPPED(x, 8);
}

// The orthogonal rotation of rotation.py, without the scale that makes it orthonormal. The
// radices' product times LANES divides `width`.
struct Rotation {
    const int32_t *radices;
    int32_t count;
    float unit;  // that scale
};

INLINE void rotate(float *x, int64_t width, const Rotation &by) {
    for (int64_t i = 0; i < width; i += LANES) store(mixed(load(x + i)), x + i);
    int64_t stride = LANES;
    for (int32_t f = 0; f < by.count; stride *= by.radices[f++]) switch (by.radices[f]) {
            case 2: stage<2>(x, width, stride); break;
            case 3: stage<3>(x, width, stride); break;
            case 4: stage<4>(x, width, stride); break;
            case 5: stage<5>(x, width, stride); break;
            default: stage<7>(x, width, stride);
        }
}

// A row's largest magnitude. NaN and infinity come out as they are: magnitudes are compared as bit
// patterns, where a NaN is the largest.
INLINE float peak_of(const float *x, int64_t width) {
    Bits largest = {};
    for (int64_t i = 0; i < width; i += LANES) {
        const Bits magnitude = Bits(load(x + i)) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    uint32_t top = 0;
    for (int64_t i = 0; i < LANES; ++i) top = largest[i] > top ? largest[i] : top;
    float peak;
    std::memcpy(&peak, &top, sizeof peak);
    return peak;
}

// Rounds a row to int8 by its largest magnitude; returns the scale, which is not finite where a
// number of the row is not.
INLINE float quantize(const float *x, int64_t width, float unit, int8_t *y) {
    const float peak = peak_of(x, width);
    const float factor = peak > 0.0f ? 127.0f / peak : 0.0f;
    for (int64_t i = 0; i < width; i += LANES) {
        const Bits whole = Bits(load(x + i) * factor + 12582912.0f);
        store_bytes(whole, y + i);
    }
    return peak * unit / 127.0f;
}

}  // namespace
