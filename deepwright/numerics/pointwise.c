/* What lies between matrix products, each in one pass over memory, forward and backward, on a CPU in fp32.
 *
 * A small model spends a third of its step in such passes; torch makes two to four where one would do. `compiled.py` builds this file.
 * R rows sorted by expert, T tokens, K choices, D width, I inner width.
 */
#include "cpu.h"

/* y = x / sqrt(mean(x^2) + eps) * weight and 1 / sqrt(...) of each row (`inverse` may be NULL); rows lie ldx and ldy apart. */
void rms_norm(const float *x, long ldx, const float *weight, float eps, float *y, long ldy, float *inverse, long M, long D) {
#pragma omp parallel for if (M * D > SMALL)
    for (long m = 0; m < M; m++) {
        const float *row = x + m * ldx;
        v16 squares = {0};
        long d = 0;
        for (; d < ALIGNED(D); d += LANES) squares += *(const v16 *)(row + d) * *(const v16 *)(row + d);
        float total = sum_lanes(squares);
        for (; d < D; d++) total += row[d] * row[d];
        float scale = 1.0f / sqrtf(total / D + eps);
        if (inverse) inverse[m] = scale;
        for (d = 0; d < D; d++) y[m * ldy + d] = row[d] * scale * weight[d];
    }
}

/* With unit = x * inverse: d_x = (g w - unit * mean(g w unit)) * inverse; thread i adds its rows' g * unit to d_weight[i]. */
void rms_norm_backward(const float *grad, const float *x, long ldx, const float *inverse, const float *weight, float *d_x, float *d_weight,
                       long threads, long M, long D) {
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        float *mine = d_weight + omp_get_thread_num() * D;
#else
        float *mine = d_weight + 0 * threads;
#endif
#pragma omp for schedule(static)
        for (long m = 0; m < M; m++) {
            const float *g = grad + m * D, *row = x + m * ldx, scale = inverse[m];
            v16 along = {0};
            long d = 0;
            for (; d < ALIGNED(D); d += LANES) along += *(const v16 *)(g + d) * *(const v16 *)(weight + d) * *(const v16 *)(row + d);
            float total = sum_lanes(along);
            for (; d < D; d++) total += g[d] * weight[d] * row[d];
            total *= scale * scale / D;
            for (d = 0; d < D; d++) {
                mine[d] += g[d] * row[d] * scale;
                d_x[m * D + d] = (g[d] * weight[d] - row[d] * total) * scale;
            }
        }
    }
}

/* y = silu(gate) * up of gate_up [M, 2I] (gate half first). */
void swiglu_forward(const float *gate_up, float *y, long M, long I) {
#pragma omp parallel for if (M * I > SMALL)
    for (long m = 0; m < M; m++) gated(gate_up + m * 2 * I, gate_up + m * 2 * I + I, y + m * I, I);
}

/* d_gate_up [M, 2I]: s = sigmoid(gate), d_gate = g up s (1 + gate (1 - s)), d_up = g gate s. */
void swiglu_backward(const float *grad, const float *gate_up, float *d_gate_up, long M, long I) {
#pragma omp parallel for if (M * I > SMALL)
    for (long m = 0; m < M; m++) {
        const float *gate = gate_up + m * 2 * I, *up = gate + I, *g = grad + m * I;
        float *d_gate = d_gate_up + m * 2 * I, *d_up = d_gate + I;
        long i = 0;
        for (; i < ALIGNED(I); i += LANES) {
            v16 x = *(const v16 *)(gate + i), s = 1.0f / (1.0f + exponential(-x)), by = *(const v16 *)(g + i);
            *(v16 *)(d_gate + i) = by * *(const v16 *)(up + i) * s * (1.0f + x * (1.0f - s));
            *(v16 *)(d_up + i) = by * x * s;
        }
        for (; i < I; i++) {
            float s = 1.0f / (1.0f + expf(-gate[i]));
            d_gate[i] = g[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
            d_up[i] = g[i] * gate[i] * s;
        }
    }
}

/* rows[row_tk] = x_t for every choice k of token t. */
void dispatch(const float *x, const int64_t *row, float *rows, long T, long K, long D) {
#pragma omp parallel for if (T * K * D > SMALL)
    for (long t = 0; t < T; t++)
        for (long k = 0; k < K; k++) memcpy(rows + row[t * K + k] * D, x + t * D, D * sizeof(float));
}

/* y_t = sum over k of weight_tk * rows[row_tk], in the order of k; weights NULL: all one. */
void combine(const float *rows, const float *weights, const int64_t *row, float *y, long T, long K, long D) {
#pragma omp parallel for if (T * K * D > SMALL)
    for (long t = 0; t < T; t++)
        for (long k = 0; k < K; k++) {
            const float *from = rows + row[t * K + k] * D, weight = weights ? weights[t * K + k] : 1.0f;
            float *to = y + t * D;
            if (k == 0)
                for (long d = 0; d < D; d++) to[d] = weight * from[d];
            else
                for (long d = 0; d < D; d++) to[d] += weight * from[d];
        }
}

/* d_rows[row_tk] = weight_tk * grad_t, d_weight_tk = rows[row_tk] . grad_t. */
void combine_backward(const float *grad, const float *rows, const float *weights, const int64_t *row, float *d_rows, float *d_weights, long T,
                      long K, long D) {
#pragma omp parallel for if (T * K * D > SMALL)
    for (long t = 0; t < T; t++)
        for (long k = 0; k < K; k++) {
            const float *from = rows + row[t * K + k] * D, *g = grad + t * D, weight = weights[t * K + k];
            float *to = d_rows + row[t * K + k] * D;
            v16 along = {0};
            long d = 0;
            for (; d < ALIGNED(D); d += LANES) {
                v16 by = *(const v16 *)(g + d);
                along += by * *(const v16 *)(from + d);
                *(v16 *)(to + d) = weight * by;
            }
            float total = sum_lanes(along);
            for (; d < D; d++) {
                total += g[d] * from[d];
                to[d] = weight * g[d];
            }
            d_weights[t * K + k] = total;
        }
}

/* Of logits z / temperature [M, V]: log softmax at the target, and the entropy. Reads the table once from memory, writes none of it. */
void log_probs(const float *logits, const int64_t *target, float inverse_temperature, float *selected, float *entropy, long M, long V) {
#pragma omp parallel for
    for (long m = 0; m < M; m++) {
        const float *z = logits + m * V;
        float most = largest(z, V), total = 0, mean = 0;
        v16 totals = {0}, means = {0};
        long v = 0;
        for (; v < ALIGNED(V); v += LANES) {
            v16 x = (*(const v16 *)(z + v) - most) * inverse_temperature, p = exponential(x);
            totals += p;
            means += p * x;
        }
        total = sum_lanes(totals), mean = sum_lanes(means);
        for (; v < V; v++) {
            float x = (z[v] - most) * inverse_temperature, p = expf(x);
            total += p;
            if (p > 0) mean += p * x;
        }
        float log_total = logf(total);
        selected[m] = (z[target[m]] - most) * inverse_temperature - log_total;
        entropy[m] = log_total - mean / total;
    }
}

/* Overwrites logits by factor_m * d (log softmax at the target) / d (z / temperature) = factor_m * (one at the target - softmax), and
 * gives the log softmax at the target. */
void log_prob_gradient(float *logits, const int64_t *target, const float *factor, float inverse_temperature, float *selected, long M, long V) {
#pragma omp parallel for
    for (long m = 0; m < M; m++) {
        float *z = logits + m * V, most = largest(z, V), at_target = (z[target[m]] - most) * inverse_temperature;
        v16 totals = {0};
        long v = 0;
        for (; v < ALIGNED(V); v += LANES) totals += *(v16 *)(z + v) = exponential((*(v16 *)(z + v) - most) * inverse_temperature);
        float total = sum_lanes(totals);
        for (; v < V; v++) total += z[v] = expf((z[v] - most) * inverse_temperature);
        selected[m] = at_target - logf(total);
        float scale = -factor[m] / total;
        for (v = 0; v < V; v++) z[v] *= scale;
        z[target[m]] += factor[m];
    }
}

INLINE uint16_t half_of(float x) { /* nearest, ties to even; a number that is not one stays so */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* One step of AdamW on N numbers with moments m, v in bf16: p <- decay p - rate m' / (sqrt(v') root + eps). */
void adamw_half(float *restrict p, const float *restrict grad, uint16_t *restrict m, uint16_t *restrict v, float decay, float rate, float root,
                float beta1, float beta2, float eps, long N) {
#pragma omp parallel for simd if (N > SMALL)
    for (long i = 0; i < N; i++) {
        float g = grad[i], first = number_of(m[i]), second = number_of(v[i]);
        first += (1.0f - beta1) * (g - first);
        second += (1.0f - beta2) * (g * g - second);
        p[i] = decay * p[i] - rate * first / (sqrtf(second) * root + eps);
        m[i] = half_of(first);
        v[i] = half_of(second);
    }
}
