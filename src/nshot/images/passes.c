/* The two passes of Pillow's resize, on images of four bytes per pixel, with AVX2 or AVX-512 VNNI.

Weights are integers of 22 fractional bits, sums are of 32 bits, and each pass rounds to bytes: the same
arithmetic as Pillow's, and so the same bytes. resample.py makes the weights, compiles this file and tests it. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define BITS 22
#define AVX2 __attribute__((target("avx2")))

#if defined(__clang__) ? __clang_major__ >= 8 : __GNUC__ >= 8
#define VNNI __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#endif

/* What the processor and the compiler have: 0 neither, 1 AVX2, 2 VNNI. */
int able(void)
{
#ifdef VNNI
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx2"))
        return 2;
#endif
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

#ifdef VNNI

/* With VNNI a weight is three digits of eight bits with a sign: d0 + 256 d1 + 65536 d2. One instruction adds the
products of four bytes and four digits to a sum of 32 bits, so three take the place of four times two. */

VNNI static inline __m256i joined(__m256i d0, __m256i d1, __m256i d2)
{
    return _mm256_add_epi32(_mm256_add_epi32(d0, _mm256_slli_epi32(d1, 8)), _mm256_slli_epi32(d2, 16));
}

/* Eight pixels at a time of so many rows; digits[outputs][groups][3][32]: of pixels 0 to 3 four times, of 4 to 7. */
VNNI static inline __attribute__((always_inline)) void
across_rows(const int rows, const uint8_t *in, int64_t stride, uint8_t *out, int64_t out_stride, int64_t outputs,
            const int32_t *first, const int32_t *count, const int8_t *digits, int64_t groups)
{
    const __m256i by_channel = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (int64_t x = 0; x < outputs; x++) {
        const uint8_t *pixel = in + 4 * (int64_t)first[x];
        const int8_t *digit = digits + 96 * groups * x;
        __m256i sums[4][3];
        for (int row = 0; row < rows; row++)
            for (int d = 0; d < 3; d++)
                sums[row][d] = _mm256_setzero_si256();
        for (int64_t left = count[x]; left > 0; left -= 8, pixel += 32, digit += 96) {
            __mmask8 there = left >= 8 ? 0xff : (__mmask8)((1 << left) - 1); /* beyond a row nothing is read */
            __m256i d0 = _mm256_loadu_si256((const __m256i *)digit);
            __m256i d1 = _mm256_loadu_si256((const __m256i *)(digit + 32));
            __m256i d2 = _mm256_loadu_si256((const __m256i *)(digit + 64));
            for (int row = 0; row < rows; row++) {
                __m256i bytes = _mm256_maskz_loadu_epi32(there, pixel + row * stride);
                bytes = _mm256_shuffle_epi8(bytes, by_channel);
                sums[row][0] = _mm256_dpbusd_epi32(sums[row][0], bytes, d0);
                sums[row][1] = _mm256_dpbusd_epi32(sums[row][1], bytes, d1);
                sums[row][2] = _mm256_dpbusd_epi32(sums[row][2], bytes, d2);
            }
        }
        for (int row = 0; row < rows; row++) {
            __m256i sum = joined(sums[row][0], sums[row][1], sums[row][2]);
            rounded(out + row * out_stride + 4 * x,
                    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
        }
    }
}

VNNI void across_vnni(const uint8_t *in, int64_t stride, int64_t rows, uint8_t *out, int64_t out_stride,
                      int64_t outputs, const int32_t *first, const int32_t *count, const int8_t *digits,
                      int64_t groups)
{
    int64_t y = 0;
    for (; y + 4 <= rows; y += 4)
        across_rows(4, in + y * stride, stride, out + y * out_stride, out_stride, outputs, first, count, digits,
                    groups);
    for (; y < rows; y++)
        across_rows(1, in + y * stride, stride, out + y * out_stride, out_stride, outputs, first, count, digits,
                    groups);
}

/* Four rows at a time, eight pixels of each; digits[outputs][groups][3]: each the four rows' digits in one. */
VNNI void down_vnni(const uint8_t *in, int64_t stride, int64_t columns, uint8_t *out, int64_t out_stride,
                    int64_t outputs, const int32_t *first, const int32_t *count, const int32_t *digits,
                    int64_t groups)
{
    for (int64_t y = 0; y < outputs; y++, out += out_stride) {
        const uint8_t *rows = in + stride * first[y];
        for (int64_t x = 0; x < columns; x += 8) {
            __mmask8 there = columns - x >= 8 ? 0xff : (__mmask8)((1 << (columns - x)) - 1);
            const int32_t *digit = digits + 3 * groups * y;
            const uint8_t *pixels = rows + 4 * x;
            __m256i sums[4][3];
            for (int part = 0; part < 4; part++)
                for (int d = 0; d < 3; d++)
                    sums[part][d] = _mm256_setzero_si256();
            for (int64_t left = count[y]; left > 0; left -= 4, pixels += 4 * stride, digit += 3) {
                __m256i four[4];
                for (int row = 0; row < 4; row++) /* a row that is not there has the weight zero */
                    four[row] = _mm256_maskz_loadu_epi32(there, pixels + (row < left ? row : 0) * stride);
                __m256i low01 = _mm256_unpacklo_epi8(four[0], four[1]), high01 = _mm256_unpackhi_epi8(four[0], four[1]);
                __m256i low23 = _mm256_unpacklo_epi8(four[2], four[3]), high23 = _mm256_unpackhi_epi8(four[2], four[3]);
                __m256i bytes[4] = {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
                                    _mm256_unpacklo_epi16(high01, high23), _mm256_unpackhi_epi16(high01, high23)};
                for (int d = 0; d < 3; d++) {
                    __m256i weights = _mm256_set1_epi32(digit[d]);
                    for (int part = 0; part < 4; part++)
                        sums[part][d] = _mm256_dpbusd_epi32(sums[part][d], bytes[part], weights);
                }
            }
            const __m256i half = _mm256_set1_epi32(1 << (BITS - 1));
            __m256i whole[4];
            for (int part = 0; part < 4; part++)
                whole[part] = _mm256_srai_epi32(
                    _mm256_add_epi32(joined(sums[part][0], sums[part][1], sums[part][2]), half), BITS);
            _mm256_mask_storeu_epi32(out + 4 * x, there,
                                     _mm256_packus_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                                         _mm256_packs_epi32(whole[2], whole[3])));
        }
    }
}

#endif
