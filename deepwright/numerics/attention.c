/* Causal latent attention in expanded form, forward and backward (fp32): every head of every sequence is a task of one thread, its keys,
 * scores and gradients stay in that core's cache, and heads are read where the projections left them.
 *
 * Products go through the BLAS routine that torch carries (`use_sgemm`): inside a parallel region it runs on the calling thread alone.
 * The backward recomputes the probabilities from the saved log-sum, which is cheaper than writing and reading them. Twin: plain.attention.
 *
 * q [B, S, H, N + R], kv [B, S, H, N + V] (keys without position, then values), key [B, S, R] shared by all heads, out [B, S, H, V].
 */
#include "cpu.h"

#define ROWS 64 /* positions a block of queries spans: smaller wastes less on the upper triangle, larger multiplies better */

sgemm_routine sgemm;

void use_sgemm(void *routine) { sgemm = (sgemm_routine)routine; }

typedef struct {
    const float *q, *kv, *key;
    long S, H, N, R, V;
    float scale;
} heads;

/* Keys of head h of sequence b as [S, N + R]. */
static void gather_keys(const heads *a, long b, long h, float *k) {
    long width = a->N + a->R, X = a->N + a->V;
    for (long s = 0; s < a->S; s++) {
        memcpy(k + s * width, a->kv + ((b * a->S + s) * a->H + h) * X, a->N * sizeof(float));
        memcpy(k + s * width + a->N, a->key + (b * a->S + s) * a->R, a->R * sizeof(float));
    }
}

/* p [rows, end] = q k^T of queries first .. first + rows. */
static void scores(const heads *a, long b, long h, const float *k, long first, long rows, float *p) {
    long width = a->N + a->R, end = first + rows;
    multiply(0, 1, rows, end, width, a->q + ((b * a->S + first) * a->H + h) * width, a->H * width, k, width, 0.0f, p, end);
}

void expanded_attention(const float *q, const float *kv, const float *key, float scale, float *out, float *log_sum, long B, long S, long H,
                        long N, long R, long V) {
    heads a = {q, kv, key, S, H, N, R, V, scale};
#pragma omp parallel
    {
        float *k = scratch(S * (N + R) + ROWS * S + 64), *p = k + S * (N + R);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * H; task++) {
            long b = task / H, h = task % H;
            gather_keys(&a, b, h, k);
            for (long first = 0; first < S; first += ROWS) {
                long rows = S - first < ROWS ? S - first : ROWS, end = first + rows;
                scores(&a, b, h, k, first, rows, p);
                for (long r = 0; r < rows; r++) {
                    float most = -INFINITY, *row = p + r * end;
                    long seen = first + r + 1;
                    float total = softmax_numerators(row, seen, scale, &most), inverse = 1.0f / total;
                    log_sum[task * S + first + r] = most * scale + logf(total);
                    for (long j = 0; j < seen; j++) row[j] *= inverse;
                    memset(row + seen, 0, (end - seen) * sizeof(float));
                }
                multiply(0, 0, rows, V, end, p, end, kv + (b * S * H + h) * (N + V) + N, H * (N + V), 0.0f,
                         out + ((b * S + first) * H + h) * V, H * V);
            }
        }
    }
}

/* d_key [B, H, S, R]: each head's share of the shared key's gradient, for the caller to sum. */
void expanded_attention_backward(const float *grad, const float *q, const float *kv, const float *key, const float *log_sum, float scale,
                                 float *d_q, float *d_kv, float *d_key, long B, long S, long H, long N, long R, long V) {
    heads a = {q, kv, key, S, H, N, R, V, scale};
    long width = N + R, X = N + V;
#pragma omp parallel
    {
        float *k = scratch(2 * S * width + 2 * ROWS * S + 64), *d_k = k + S * width, *p = d_k + S * width, *d_p = p + ROWS * S;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * H; task++) {
            long b = task / H, h = task % H, last = (S - 1) / ROWS * ROWS;
            const float *v = kv + (b * S * H + h) * X + N;
            gather_keys(&a, b, h, k);
            for (long first = last; first >= 0; first -= ROWS) { /* the last block sees every key, so it starts the sums */
                long rows = S - first < ROWS ? S - first : ROWS, end = first + rows;
                const float *g = grad + ((b * S + first) * H + h) * V;
                float beta = first == last ? 0.0f : 1.0f;
                scores(&a, b, h, k, first, rows, p);
                multiply(0, 1, rows, end, V, g, H * V, v, H * X, 0.0f, d_p, end);
                for (long r = 0; r < rows; r++) {
                    float *row = p + r * end, *d = d_p + r * end, log_total = log_sum[task * S + first + r];
                    long seen = first + r + 1;
                    v16 along = {0};
                    float rest = 0;
                    long j = 0;
                    for (; j + LANES <= seen; j += LANES) {
                        v16 e = exponential(*(v16 *)(row + j) * scale - log_total);
                        *(v16 *)(row + j) = e;
                        along += e * *(v16 *)(d + j);
                    }
                    for (; j < seen; j++) {
                        row[j] = expf(row[j] * scale - log_total);
                        rest += row[j] * d[j];
                    }
                    rest += sum_lanes(along);
                    for (j = 0; j < seen; j++) d[j] = row[j] * (d[j] - rest) * scale;
                    memset(row + seen, 0, (end - seen) * sizeof(float));
                    memset(d + seen, 0, (end - seen) * sizeof(float));
                }
                multiply(1, 0, end, V, rows, p, end, g, H * V, beta, d_kv + (b * S * H + h) * X + N, H * X);
                multiply(1, 0, end, width, rows, d_p, end, q + ((b * S + first) * H + h) * width, H * width, beta, d_k, width);
                multiply(0, 0, rows, width, end, d_p, end, k, width, 0.0f, d_q + ((b * S + first) * H + h) * width, H * width);
            }
            for (long s = 0; s < S; s++) {
                memcpy(d_kv + ((b * S + s) * H + h) * X, d_k + s * width, N * sizeof(float));
                memcpy(d_key + (task * S + s) * R, d_k + s * width + N, R * sizeof(float));
            }
        }
    }
}
