/* The two passes of Pillow's resize, on images of four bytes per pixel, with AVX2.

Weights are integers of 22 fractional bits, sums are of 32 bits, and each pass rounds to bytes: the same
arithmetic as Pillow's, and so the same bytes. resample.py makes the weights, compiles this file and tests it. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define BITS 22
#define AVX2 __attribute__((target("avx2")))

int able(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

/* Eight bytes, each times its weight, added to eight sums. */
AVX2 static inline __m256i added(__m256i sums, const uint8_t *bytes, __m256i weights)
{
    __m256i values = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    return _mm256_add_epi32(sums, _mm256_mullo_epi32(values, weights));
}

/* The same for one pixel. */
AVX2 static inline __m128i added1(__m128i sums, const uint8_t *pixel, __m128i weights)
{
    int32_t bytes;
    memcpy(&bytes, pixel, 4);
    return _mm_add_epi32(sums, _mm_mullo_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)), weights));
}

/* Four sums, rounded and clipped to the bytes of a pixel. */
AVX2 static inline void rounded(uint8_t *pixel, __m128i sums)
{
    sums = _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(1 << (BITS - 1))), BITS);
    sums = _mm_packs_epi32(sums, sums);
    int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(sums, sums));
    memcpy(pixel, &bytes, 4);
}

/* Along each row. first, count: of each output pixel's input pixels; weights[outputs][most][4]: each four times. */
AVX2 void across(const uint8_t *in, int64_t stride, int64_t rows, uint8_t *out, int64_t out_stride,
                 int64_t outputs, const int32_t *first, const int32_t *count, const int32_t *weights, int64_t most)
{
    for (int64_t y = 0; y < rows; y++, in += stride, out += out_stride) {
        for (int64_t x = 0; x < outputs; x++) {
            const uint8_t *pixel = in + 4 * (int64_t)first[x];
            const int32_t *weight = weights + 4 * most * x;
            int64_t n = count[x], i = 0;
            __m256i a = _mm256_setzero_si256(), b = a;
            for (; i + 4 <= n; i += 4) {
                a = added(a, pixel + 4 * i, _mm256_loadu_si256((const __m256i *)(weight + 4 * i)));
                b = added(b, pixel + 4 * i + 8, _mm256_loadu_si256((const __m256i *)(weight + 4 * i + 8)));
            }
            a = _mm256_add_epi32(a, b);
            __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
            for (; i < n; i++)
                sums = added1(sums, pixel + 4 * i, _mm_loadu_si128((const __m128i *)(weight + 4 * i)));
            rounded(out + 4 * x, sums);
        }
    }
}

/* Down each column of so many pixels. first, count: of each output row's input rows; weights[outputs][most]. */
AVX2 void down(const uint8_t *in, int64_t stride, int64_t columns, uint8_t *out, int64_t out_stride,
               int64_t outputs, const int32_t *first, const int32_t *count, const int32_t *weights, int64_t most)
{
    for (int64_t y = 0; y < outputs; y++, out += out_stride) {
        const uint8_t *rows = in + stride * first[y];
        const int32_t *weight = weights + most * y;
        int64_t n = count[y], x = 0;
        for (; x + 8 <= columns; x += 8) {
            __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                               _mm256_setzero_si256()};
            const uint8_t *pixels = rows + 4 * x;
            for (int64_t i = 0; i < n; i++, pixels += stride) {
                __m256i one = _mm256_set1_epi32(weight[i]);
                for (int part = 0; part < 4; part++)
                    sums[part] = added(sums[part], pixels + 8 * part, one);
            }
            for (int part = 0; part < 4; part++) {
                rounded(out + 4 * x + 8 * part, _mm256_castsi256_si128(sums[part]));
                rounded(out + 4 * x + 8 * part + 4, _mm256_extracti128_si256(sums[part], 1));
            }
        }
        for (; x < columns; x++) {
            __m128i sums = _mm_setzero_si128();
            const uint8_t *pixel = rows + 4 * x;
            for (int64_t i = 0; i < n; i++, pixel += stride)
                sums = added1(sums, pixel, _mm_set1_epi32(weight[i]));
            rounded(out + 4 * x, sums);
        }
    }
}
