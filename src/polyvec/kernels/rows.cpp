// What happens to a token's row between two matrix products: norms, rotary angles, activations,
// rotation and rounding to int8. One pass over a row while it is in the first cache, where torch's
// operators make one pass each over the whole batch.
//
// Single-threaded: the engine runs one worker a core, each on rows of its own. Written in vectors
// of 16 floats, which GCC and Clang lower to what a processor has; built once per instruction set
// (hatch_build.py), chosen when loaded (library.py). Every function works row by row, so a row's
// result does not depend on the others. Widths are multiples of 16: the caller sees to that.

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace {

// exp(x) to 2 ulp on [-64, 64], clamped outside: Cody-Waite reduction and the polynomial of
// Cephes' expf.
INLINE Floats exponential(Floats x) {
    x = x < -64.0f ? splat(-64.0f) : x;
    x = x > 64.0f ? splat(64.0f) : x;
    const Floats shifted = x * 1.44269504088896341f + 12582912.0f;
    const Ints power = Ints(shifted) - 0x4b400000;
    const Floats whole = shifted - 12582912.0f;
    Floats r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * Floats((power + 127) << 23);
}

// 1 / x to 2 ulp for x in [1, 2^96]: a bit pattern's guess and steps of Newton, several times as
// fast as the division.
INLINE Floats reciprocal(Floats x) {
#ifdef __AVX512F__
    Floats y = Floats(_mm512_maskz_rcp14_ps(0xffff, __m512(x)));
#else
    Floats y = Floats(0x7ef311c7 - Bits(x));
    y = y * (2.0f - x * y);
    y = y * (2.0f - x * y);
#endif
    return y + y * (1.0f - x * y);
}

INLINE Floats silu(Floats x) { return x * reciprocal(1.0f + exponential(-x)); }

// The exact GELU; erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
INLINE Floats gelu(Floats x) {
    const Floats z = (x < 0.0f ? -x : x) * 0.70710678118654752f;
    const Floats t = reciprocal(1.0f + 0.3275911f * z);
    Floats p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats tail = 0.5f * p * t * exponential(-z * z);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

template <class F>
INLINE float sum_of(int64_t width, F term) {
    Floats a = {}, b = {};  // two sums at once hide half of an addition's latency
    int64_t i = 0;
    for (; i + 2 * LANES <= width; i += 2 * LANES) a += term(i), b += term(i + LANES);
    if (i < width) a += term(i);
    return total(a + b);
}

INLINE float rms_scale(const float *x, int64_t width, float eps) {
    const float squares = sum_of(width, [x](int64_t i) { return load(x + i) * load(x + i); });
    return 1.0f / std::sqrt(squares / float(width) + eps);
}

template <class T>
INLINE void quantize_rows(const T *x, int64_t rows, int64_t width, Rotation by, int8_t *y,
                          float *scale) {
    float row[MAX_WIDTH];
    for (int64_t t = 0; t < rows; ++t, x += width, y += width) {
        for (int64_t i = 0; i < width; i += LANES) store(load(x + i), row + i);
        rotate(row, width, by);
        scale[t] = quantize(row, width, by.unit, y);
    }
}

template <class T>
INLINE void rms_norm_rows(const float *x, int64_t rows, int64_t width, const float *gain,
                          float eps, T *y) {
    for (int64_t t = 0; t < rows; ++t, x += width, y += width) {
        const float factor = rms_scale(x, width, eps);
        for (int64_t i = 0; i < width; i += LANES)
            store(load(x + i) * factor * load(gain + i), y + i);
    }
}

// x += scale * y + bias; `bias` may be null.
template <class T>
INLINE void add_row(float *x, const T *y, int64_t width, float scale, const float *bias) {
    for (int64_t i = 0; i < width; i += LANES) {
        const Floats sum = load(x + i) + load(y + i) * scale;
        store(bias ? sum + load(bias + i) : sum, x + i);
    }
}

template <class T>
INLINE void add_rows(float *x, const T *y, int64_t rows, int64_t width, const float *scale,
                     const float *bias) {
    for (int64_t t = 0; t < rows; ++t)
        add_row(x + t * width, y + t * width, width, scale ? scale[t] : 1.0f, bias);
}

// x = layer_norm(x + scale * y + bias), the residual stream of a BERT.
template <class T>
INLINE void add_layer_norm_rows(float *x, const T *y, int64_t rows, int64_t width,
                                const float *scale, const float *bias, const float *gain,
                                const float *shift, float eps) {
    for (int64_t t = 0; t < rows; ++t, x += width, y += width) {
        add_row(x, y, width, scale ? scale[t] : 1.0f, bias);
        const float mean = sum_of(width, [x](int64_t i) { return load(x + i); }) / float(width);
        const float squares = sum_of(width, [x, mean](int64_t i) {
            return (load(x + i) - mean) * (load(x + i) - mean);
        });
        const float factor = 1.0f / std::sqrt(squares / float(width) + eps);
        for (int64_t i = 0; i < width; i += LANES)
            store((load(x + i) - mean) * factor * load(gain + i) + load(shift + i), x + i);
    }
}

struct Heads {
    int64_t queries, keys, size;
    const float *query_gain, *key_gain;  // null where heads are not normed
    float eps;
};

// Scale, bias, head norms and rotary angles of a row of queries, keys and values.
template <class T>
INLINE void heads_row(const T *x, T *y, const Heads &h, float scale, const float *bias,
                      const float *cosine, const float *sine) {
    const int64_t all = h.queries + 2 * h.keys, size = h.size, half = size / 2;
    float head[1024];
    for (int64_t n = 0; n < all; ++n, x += size, y += size) {
        for (int64_t i = 0; i < size; i += LANES) {
            const Floats part = load(x + i) * scale;
            store(bias ? part + load(bias + n * size + i) : part, head + i);
        }
        const bool turned = n < h.queries + h.keys;
        const float *gain = n < h.queries ? h.query_gain : h.key_gain;
        if (turned && gain) {
            const float factor = rms_scale(head, size, h.eps);
            for (int64_t i = 0; i < size; i += LANES)
                store(load(head + i) * factor * load(gain + i), head + i);
        }
        if (turned && cosine) {
            for (int64_t i = 0; i < half; i += LANES) {
                const Floats a = load(head + i), b = load(head + half + i);
                store(a * load(cosine + i) + b * load(sine + i), y + i);
                store(b * load(cosine + half + i) + a * load(sine + half + i), y + half + i);
            }
        } else {
            for (int64_t i = 0; i < size; i += LANES) store(load(head + i), y + i);
        }
    }
}

template <class T>
INLINE void heads_rows(const T *x, T *y, int64_t rows, const Heads &h, const float *scale,
                       const float *bias, const float *cosine, const float *sine) {
    const int64_t width = (h.queries + 2 * h.keys) * h.size;
    for (int64_t t = 0; t < rows; ++t)
        heads_row(x + t * width, y + t * width, h, scale ? scale[t] : 1.0f, bias,
                  cosine ? cosine + t * h.size : nullptr, sine ? sine + t * h.size : nullptr);
}

// y = silu(gate) * up of rows [gate | up]; a row of `y` begins every `stride` elements.
template <class T>
INLINE void swiglu_rows(const T *x, T *y, int64_t rows, int64_t width, int64_t stride,
                        const float *scale, const float *bias) {
    for (int64_t t = 0; t < rows; ++t, x += 2 * width, y += stride) {
        const float s = scale ? scale[t] : 1.0f;
        for (int64_t i = 0; i < width; i += LANES) {
            Floats gate = load(x + i) * s, up = load(x + width + i) * s;
            if (bias) gate += load(bias + i), up += load(bias + width + i);
            store(silu(gate) * up, y + i);
        }
    }
}

template <class T>
INLINE void gelu_rows(const T *x, T *y, int64_t rows, int64_t width, const float *scale,
                      const float *bias) {
    for (int64_t t = 0; t < rows; ++t, x += width, y += width) {
        const float s = scale ? scale[t] : 1.0f;
        for (int64_t i = 0; i < width; i += LANES) {
            const Floats part = load(x + i) * s;
            store(gelu(bias ? part + load(bias + i) : part), y + i);
        }
    }
}

}  // namespace

EXPORT void pv_rms_norm_int8(const float *x, int64_t rows, int64_t width, const float *gain,
                             float eps, const int32_t *radices, int32_t count, float unit,
                             int8_t *y, float *scale) {
    float row[MAX_WIDTH];
    for (int64_t t = 0; t < rows; ++t, x += width, y += width) {
        rms_norm_rows(x, 1, width, gain, eps, row);
        rotate(row, width, Rotation{radices, count, unit});
        scale[t] = quantize(row, width, unit, y);
    }
}

#define FOR_TYPE(T, NAME)                                                                        \
    EXPORT void pv_quantize_##NAME(const T *x, int64_t rows, int64_t width,                      \
                                   const int32_t *radices, int32_t count, float unit, int8_t *y, \
                                   float *scale) {                                               \
        quantize_rows(x, rows, width, Rotation{radices, count, unit}, y, scale);                 \
    }                                                                                            \
    EXPORT void pv_rms_norm_##NAME(const float *x, int64_t rows, int64_t width,                  \
                                   const float *gain, float eps, T *y) {                         \
        rms_norm_rows(x, rows, width, gain, eps, y);                                             \
    }                                                                                            \
    EXPORT void pv_add_##NAME(float *x, const T *y, int64_t rows, int64_t width,                 \
                              const float *scale, const float *bias) {                           \
        add_rows(x, y, rows, width, scale, bias);                                                \
    }                                                                                            \
    EXPORT void pv_add_layer_norm_##NAME(float *x, const T *y, int64_t rows, int64_t width,      \
                                         const float *scale, const float *bias,                  \
                                         const float *gain, const float *shift, float eps) {     \
        add_layer_norm_rows(x, y, rows, width, scale, bias, gain, shift, eps);                   \
    }                                                                                            \
    EXPORT void pv_heads_##NAME(const T *x, T *y, int64_t rows, int64_t queries, int64_t keys,   \
                                int64_t size, const float *query_gain, const float *key_gain,    \
                                float eps, const float *scale, const float *bias,                \
                                const float *cosine, const float *sine) {                        \
        heads_rows(x, y, rows, Heads{queries, keys, size, query_gain, key_gain, eps}, scale,     \
                   bias, cosine, sine);                                                          \
    }                                                                                            \
    EXPORT void pv_swiglu_##NAME(const T *x, T *y, int64_t rows, int64_t width, int64_t stride,  \
                                 const float *scale, const float *bias) {                        \
        swiglu_rows(x, y, rows, width, stride, scale, bias);                                     \
    }                                                                                            \
    EXPORT void pv_gelu_##NAME(const T *x, T *y, int64_t rows, int64_t width,                    \
                               const float *scale, const float *bias) {                          \
        gelu_rows(x, y, rows, width, scale, bias);                                               \
    }

FOR_TYPE(float, f32)
FOR_TYPE(Bf16, bf16)

EXPORT int32_t pv_version() { return 3; }
