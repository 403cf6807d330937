/* Vectors of 16 floats as the compiler's own type (no intrinsics): AVX-512, AVX2 and NEON machines all take them. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define LANES 16
#define ALIGNED(n) ((n) / LANES * LANES)
#define SMALL 16384 /* operations below which waking the other threads costs more than they save */
#define AHEAD 16 /* rows of W asked for before they are needed */
#define INLINE static inline __attribute__((always_inline))
#define VECTOR(type, bytes) type __attribute__((vector_size(bytes), aligned(4), may_alias))
typedef VECTOR(float, 64) v16;
typedef VECTOR(int32_t, 64) i16v;
typedef VECTOR(float, 32) v8;
typedef VECTOR(float, 16) v4;
typedef uint16_t h16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t u16v __attribute__((vector_size(64), aligned(4), may_alias));

/* One matrix as it lies in memory: fp32, or bf16 (`half`), which is the upper half of an fp32. */
typedef struct {
    const void *data;
    int half;
} matrix;

INLINE matrix part(matrix w, long numbers) {
    return (matrix){(const char *)w.data + numbers * (w.half ? 2 : 4), w.half};
}

INLINE v16 load(const void *data, int half, long i) {
    if (!half) return *(const v16 *)((const float *)data + i);
    return (v16)(__builtin_convertvector(*(const h16 *)((const uint16_t *)data + i), u16v) << 16);
}

INLINE float number_of(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE v16 load_tail(const void *data, int half, long i, long count) {
    v16 out = {0};
    for (long j = i; j < i + count; j++) out[j - i] = half ? number_of(((const uint16_t *)data)[j]) : ((const float *)data)[j];
    return out;
}

/* The four sums over the lanes of a, b, c, d. */
INLINE v4 sums(v16 a, v16 b, v16 c, v16 d) {
#define LOW(x, y) __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH(x, y) __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
    v16 ab = LOW(a, b) + HIGH(a, b), cd = LOW(c, d) + HIGH(c, d);
    v16 all = __builtin_shufflevector(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
              __builtin_shufflevector(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    v8 half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
}

INLINE float sum_lanes(v16 a) {
    v16 zero = {0};
    return sums(a, zero, zero, zero)[0];
}

INLINE v16 choose(i16v mask, v16 yes, v16 no) { return (v16)((mask & (i16v)yes) | (~mask & (i16v)no)); }

/* exp(x) between -87 and 88: 2^n * polynomial, relative error 2e-7 (Cephes' coefficients). */
INLINE v16 exponential(v16 x) {
    v16 given = x, lowest = (v16){0} - 87.0f, highest = (v16){0} + 88.0f, zero = {0};
    x = choose(x > lowest, x, lowest);
    x = choose(x < highest, x, highest);
    i16v n = __builtin_convertvector(x * 1.44269504f + choose(x > zero, zero + 0.5f, zero - 0.5f), i16v);
    v16 k = __builtin_convertvector(n, v16), r = x - k * 0.693359375f + k * 2.12194440e-4f;
    v16 p = (v16){0} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return choose(given == given, p * (v16)((n + 127) << 23), given); /* not a number stays one */
}

/* Working memory of the calling thread, kept for the next call. */
static float *scratch(size_t numbers) {
    static __thread float *kept = NULL;
    static __thread size_t size = 0;
    if (numbers > size) {
        free(kept);
        size = numbers * 2;
        kept = aligned_alloc(64, (size * sizeof(float) + 63) / 64 * 64);
        if (!kept) abort();
    }
    return kept;
}

static float largest(const float *x, long n) {
    v16 most = (v16){0} - INFINITY;
    long i = 0;
    for (; i < ALIGNED(n); i += LANES) most = choose(*(const v16 *)(x + i) > most, *(const v16 *)(x + i), most);
    float top = -INFINITY;
    for (long j = 0; j < LANES; j++) top = most[j] > top ? most[j] : top;
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* p[j] = exp(scale * (p[j] - most)), most their maximum; returns the sum. */
static float softmax_numerators(float *p, long J, float scale, float *most) {
    *most = largest(p, J);
    v16 total = {0};
    long j = 0;
    for (; j + LANES <= J; j += LANES) total += *(v16 *)(p + j) = exponential((*(v16 *)(p + j) - *most) * scale);
    float sum = sum_lanes(total);
    for (; j < J; j++) sum += p[j] = expf((p[j] - *most) * scale);
    return sum;
}

/* h = silu(gate) * up. */
INLINE void gated(const float *gate, const float *up, float *h, long n) {
    long i = 0;
    for (; i < ALIGNED(n); i += LANES) {
        v16 g = *(const v16 *)(gate + i);
        *(v16 *)(h + i) = g / (1.0f + exponential(-g)) * *(const v16 *)(up + i);
    }
    for (; i < n; i++) h[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* pointwise.c, also used by decode.c */
void rms_norm(const float *x, long ldx, const float *weight, float eps, float *y, long ldy, float *inverse, long M, long D);

/* attention.c: the BLAS routine that torch carries, NULL where it shows none. Inside a parallel region it runs on the calling thread. */
typedef void (*sgemm_routine)(const char *, const char *, const int *, const int *, const int *, const float *, const float *, const int *,
                              const float *, const int *, const float *, float *, const int *);
extern sgemm_routine sgemm;

/* C [M, N] = beta C + A B, row by row; A is [M, K], or [K, M] with ta; B is [K, N], or [N, K] with tb. */
static inline void multiply(int ta, int tb, int M, int N, int K, const float *A, int lda, const float *B, int ldb, float beta, float *C, int ldc) {
    const float one = 1.0f;
    sgemm(tb ? "T" : "N", ta ? "T" : "N", &N, &M, &K, &one, B, &ldb, A, &lda, &beta, C, &ldc);
}
