/* Decoding on a CPU: the handful of operations one step of the engine is made of, each in one call.
 *
 * For a few rows the time of a step goes into reading weights and into calling operations, not into multiplying: a vendor's
 * matrix product is made for hundreds of rows, and a layer of plain torch is some sixty calls. Weights are read once, as they lie
 * in memory (rows of W, no copy, no second layout), by all threads; everything else is kept in fp32 on the way.
 * `compiled.py` builds this file at first use and falls back to torch where it cannot; the plain twins are what torch does.
 */
#include "cpu.h"

/* y[m][n] = x[m] . w[n] for an MR x NR tile, NR 1, 4 or 8; the constants unroll everything. */
INLINE void tile(const int MR, const int NR, const float *x, long ldx, matrix w, long ldw, long first, long K, float *y, long ldy) {
    v16 total[4][8] = {{{0}}};
    long k = 0;
    for (; k + LANES <= K; k += LANES) {
        v16 row[4];
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++) row[m] = *(const v16 *)(x + m * ldx + k);
#pragma GCC unroll 8
        for (int n = 0; n < NR; n++) {
            v16 column = load(w.data, w.half, (first + n) * ldw + k);
            __builtin_prefetch(part(w, (first + n + AHEAD) * ldw + k).data);
#pragma GCC unroll 4
            for (int m = 0; m < MR; m++) total[m][n] += row[m] * column;
        }
    }
    if (k < K)
        for (int n = 0; n < NR; n++) {
            v16 column = load_tail(w.data, w.half, (first + n) * ldw + k, K - k);
            for (int m = 0; m < MR; m++) total[m][n] += load_tail(x, 0, m * ldx + k, K - k) * column;
        }
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) {
        if (NR == 1) y[m * ldy] = sum_lanes(total[m][0]);
#pragma GCC unroll 2
        for (int n = 0; n + 4 <= NR; n += 4)
            *(v4 *)(y + m * ldy + n) = sums(total[m][n], total[m][n + 1], total[m][n + 2], total[m][n + 3]);
    }
}

INLINE void rows_by_columns(const int NR, const float *x, long ldx, matrix w, long ldw, long first, long M, long K, float *y, long ldy) {
    long m = 0;
    for (; m + 4 <= M; m += 4) tile(4, NR, x + m * ldx, ldx, w, ldw, first, K, y + m * ldy, ldy);
    if (M - m == 3) tile(3, NR, x + m * ldx, ldx, w, ldw, first, K, y + m * ldy, ldy);
    if (M - m == 2) tile(2, NR, x + m * ldx, ldx, w, ldw, first, K, y + m * ldy, ldy);
    if (M - m == 1) tile(1, NR, x + m * ldx, ldx, w, ldw, first, K, y + m * ldy, ldy);
}

INLINE void product_of(const int half, const float *x, long ldx, const void *data, long ldw, long begin, long end, long M, long K, float *y,
                       long ldy) {
    matrix w = {data, half};
    long n = begin;
    if (M == 1)
        for (; n + 8 <= end; n += 8) tile(1, 8, x, ldx, w, ldw, n, K, y + n - begin, ldy);
    for (; n + 4 <= end; n += 4) rows_by_columns(4, x, ldx, w, ldw, n, M, K, y + n - begin, ldy);
    for (; n < end; n++) rows_by_columns(1, x, ldx, w, ldw, n, M, K, y + n - begin, ldy);
}

#define BLAS_ROWS 24 /* from here on the vendor's routine, on one thread, is the faster one */
/* y[m][n - begin] = x[m] . w[n], n in [begin, end); rows of w lie ldw apart. */
static void apart(const float *x, long ldx, matrix w, long ldw, long begin, long end, long M, long K, float *y, long ldy) {
    if (!w.half && M >= BLAS_ROWS && sgemm) multiply(0, 1, M, end - begin, K, x, ldx, (const float *)w.data + begin * ldw, ldw, 0.0f, y, ldy);
    else if (w.half) product_of(1, x, ldx, w.data, ldw, begin, end, M, K, y, ldy);
    else product_of(0, x, ldx, w.data, ldw, begin, end, M, K, y, ldy);
}

static void product(const float *x, long ldx, matrix w, long begin, long end, long M, long K, float *y, long ldy) {
    apart(x, ldx, w, K, begin, end, M, K, y, ldy);
}

/* y [M, N] = x [M, K] w [N, K]^T. */
void linear(const float *x, long ldx, const void *weight, int half, float *y, long M, long N, long K) {
    matrix w = {weight, half};
#pragma omp parallel if (M * N * K > SMALL)
    {
#ifdef _OPENMP
        long thread = omp_get_thread_num(), threads = omp_get_num_threads();
#else
        long thread = 0, threads = 1;
#endif
        long share = (N / threads + 7) / 8 * 8, begin = thread * share, end = thread + 1 == threads ? N : begin + share;
        if (begin < N) product(x, ldx, w, begin, end < N ? end : N, M, K, y + begin, N);
    }
}

/* Turns channel pairs: x has `heads` vectors of width R a row (strides in numbers), turn [M, R/2] complex. y has its own strides and may be x. */
static void rotate(const float *x, long row_stride, long head_stride, const float *turn, int interleave, float *y, long ldy,
            long head_step, long M, long heads, long R) {
    long first = interleave ? 2 : 1, second = interleave ? 1 : R / 2;
    for (long m = 0; m < M; m++)
        for (long h = 0; h < heads; h++) {
            const float *in = x + m * row_stride + h * head_stride;
            float *out = y + m * ldy + h * head_step;
            for (long i = 0; i < R / 2; i++) {
                float a = in[i * first], b = in[i * first + second], c = turn[m * R + 2 * i], s = turn[m * R + 2 * i + 1];
                out[i * first] = a * c - b * s;
                out[i * first + second] = a * s + b * c;
            }
        }
}

/* y_t = sum over k of weight_tk * down_e (silu(gate_e x_t) * up_e x_t), e = ids_tk. gate_up [E, 2I, D] (gate rows first), down
 * [E, D, I]. ids NULL: one expert, every row, weight 1 (a dense feed-forward block). Threads share out (expert, columns). */
#define COLUMNS 64
#define TOGETHER 64 /* rows of an expert: both halves of their result stay in the cache */
void expert_mlp(const float *x, const int64_t *ids, const float *weights, const void *gate_up, const void *down, int half, float *y,
                long T, long K, long E, long D, long I) {
    long R = T * K, blocks_up = (I + COLUMNS - 1) / COLUMNS, blocks_down = (D + COLUMNS - 1) / COLUMNS;
    float *inner = scratch(R * (I + 2 * D) + E + 1 + 2 * R + 64), *out = inner + R * I, *sorted = out + R * D;
    int32_t *start = (int32_t *)(sorted + R * D), *row_of = start + E + 1, *used = row_of + R;
    long met = 0;
    memset(start, 0, (E + 1) * sizeof(int32_t));
    for (long r = 0; r < R; r++) start[(ids ? ids[r] : 0) + 1]++;
    for (long e = 0; e < E; e++) {
        if (start[e + 1]) used[met++] = e;
        start[e + 1] += start[e];
    }
    for (long r = 0; r < R; r++) { /* places are handed out in order; `start` is moved on and moved back below */
        long place = ids ? start[ids[r]]++ : r;
        row_of[r] = place;
        if (ids) memcpy(sorted + place * D, x + r / K * D, D * sizeof(float));
    }
    if (ids) {
        for (long e = E; e > 0; e--) start[e] = start[e - 1];
        start[0] = 0;
    }
    const float *from = ids ? sorted : x;
    matrix up = {gate_up, half}, back = {down, half};
#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
        for (long task = 0; task < met * blocks_up; task++) {
            long e = used[task / blocks_up], begin = task % blocks_up * COLUMNS, end = begin + COLUMNS < I ? begin + COLUMNS : I;
            matrix w = part(up, e * 2 * I * D);
            for (long row = start[e]; row < start[e + 1]; row += TOGETHER) {
                float gate[TOGETHER * COLUMNS], value[TOGETHER * COLUMNS];
                long count = start[e + 1] - row < TOGETHER ? start[e + 1] - row : TOGETHER;
                product(from + row * D, D, w, begin, end, count, D, gate, COLUMNS);
                product(from + row * D, D, w, I + begin, I + end, count, D, value, COLUMNS);
                for (long m = 0; m < count; m++) gated(gate + m * COLUMNS, value + m * COLUMNS, inner + (row + m) * I + begin, end - begin);
            }
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < met * blocks_down; task++) {
            long e = used[task / blocks_down], begin = task % blocks_down * COLUMNS, end = begin + COLUMNS < D ? begin + COLUMNS : D;
            product(inner + start[e] * I, I, part(back, e * D * I), begin, end, start[e + 1] - start[e], I,
                    (ids ? out : y) + start[e] * D + begin, D);
        }
        if (ids) {
#pragma omp for schedule(static)
            for (long t = 0; t < T; t++)
                for (long d = 0; d < D; d++) {
                    float total = 0;
                    for (long k = 0; k < K; k++) total += weights[t * K + k] * out[row_of[t * K + k] * D + d];
                    y[t * D + d] = total;
                }
        }
    }
}

/* out[m][c] += sum over j of p[m][j] * row_j[c] for MR rows of p; row j lies at first + j * stride. */
INLINE void mix_tile(const int MR, const int half, const float *p, long ldp, matrix rows, long first, long stride, long J, long C, float *out,
                     long ldo) {
    rows.half = half;
    long c = 0;
    for (; c + 2 * LANES <= C; c += 2 * LANES) {
        v16 total[4][2];
        for (int m = 0; m < MR; m++)
            for (int i = 0; i < 2; i++) total[m][i] = *(v16 *)(out + m * ldo + c + i * LANES);
        for (long j = 0; j < J; j++) {
            v16 a = load(rows.data, half, first + j * stride + c), b = load(rows.data, half, first + j * stride + c + LANES);
#pragma GCC unroll 4
            for (int m = 0; m < MR; m++) {
                total[m][0] += p[m * ldp + j] * a;
                total[m][1] += p[m * ldp + j] * b;
            }
        }
        for (int m = 0; m < MR; m++)
            for (int i = 0; i < 2; i++) *(v16 *)(out + m * ldo + c + i * LANES) = total[m][i];
    }
    for (; c < C; c += LANES) {
        long count = C - c < LANES ? C - c : LANES;
        for (int m = 0; m < MR; m++) {
            v16 total = {0};
            for (long j = 0; j < J; j++) total += p[m * ldp + j] * load_tail(rows.data, half, first + j * stride + c, count);
            for (long i = 0; i < count; i++) out[m * ldo + c + i] += total[i];
        }
    }
}

static void mix(long M, const float *p, long ldp, matrix rows, long first, long stride, long J, long C, float *out, long ldo) {
#define MIX(MR) (rows.half ? mix_tile(MR, 1, p, ldp, rows, first, stride, J, C, out, ldo) : mix_tile(MR, 0, p, ldp, rows, first, stride, J, C, out, ldo))
    if (M == 4) MIX(4);
    else if (M == 3) MIX(3);
    else if (M == 2) MIX(2);
    else MIX(1);
}

/* Latent attention with the up-projections folded in: for query row m of batch row m / S and head h
 *   q = [q_nope W_UK | q_rope],  p = softmax(scale * q . key_j, j <= position_m),  y = (sum p_j latent_j) W_UV^T.
 * q [M, H, N + R]; kv_b [H, N + V, C]; y [M, H, V]. Keys [C + R] lie in blocks of `block`: block i of batch row b is
 * the table[b * ldt + i]-th one of `keys`. Threads share out (row, 4 heads): those read every key together. */
#define HEADS 4
void absorbed_attention(const float *q_rows, const void *keys, const int64_t *table, long ldt, long block, const void *kv_b, int half,
                        const int64_t *position, float scale, float *y, long M, long S, long T, long H, long N, long R, long V, long C) {
    long width = C + R, groups = (H + HEADS - 1) / HEADS;
    matrix key = {keys, half}, up = {kv_b, half};
#pragma omp parallel
    {
        float *query = scratch(HEADS * (width + C + T) + 64), *context = query + HEADS * width, *score = context + HEADS * C;
#pragma omp for schedule(static)
        for (long task = 0; task < M * groups; task++) {
            long m = task / groups, first = task % groups * HEADS, heads = H - first < HEADS ? H - first : HEADS;
            long seen = position[m] + 1 < T ? position[m] + 1 : T;
            const int64_t *blocks = table + m / S * ldt;
            memset(query, 0, HEADS * (width + C) * sizeof(float));
            for (long h = 0; h < heads; h++) {
                const float *q = q_rows + (m * H + first + h) * (N + R);
                mix(1, q, 0, up, (first + h) * (N + V) * C, C, N, C, query + h * width, 0);
                memcpy(query + h * width + C, q + N, R * sizeof(float));
            }
            for (long j = 0; j < seen; j += block)
                product(query, width, part(key, blocks[j / block] * block * width), 0, seen - j < block ? seen - j : block, heads, width, score + j, T);
            float total[HEADS];
            for (long h = 0; h < heads; h++) total[h] = softmax_numerators(score + h * T, seen, scale, &(float){0});
            for (long j = 0; j < seen; j += block)
                mix(heads, score + j, T, key, blocks[j / block] * block * width, width, seen - j < block ? seen - j : block, C, context, C);
            for (long h = 0; h < heads; h++) {
                for (long c = 0; c < C; c++) context[h * C + c] /= total[h];
                product(context + h * C, C, part(up, ((first + h) * (N + V) + N) * C), 0, V, 1, C,
                        y + (m * H + first + h) * V, V);
            }
        }
    }
}

/* Grouped-query attention over the same kind of pages: an entry is [keys of K heads | values of K heads], each of width d; query head h
 * reads key head h / (H / K). q, y [M, H, d]. Threads share out (row, key head). */
void grouped_attention(const float *q, const void *entries, const int64_t *table, long ldt, long block, int half, const int64_t *position,
                       float scale, float *y, long M, long S, long T, long H, long K, long d) {
    long width = 2 * K * d, group = H / K;
    matrix entry = {entries, half};
#pragma omp parallel
    {
        float *score = scratch(HEADS * T + 64);
#pragma omp for schedule(static)
        for (long task = 0; task < M * K; task++) {
            long m = task / K, k = task % K, seen = position[m] + 1 < T ? position[m] + 1 : T;
            const int64_t *blocks = table + m / S * ldt;
            for (long first = k * group; first < (k + 1) * group; first += HEADS) {
                long heads = (k + 1) * group - first < HEADS ? (k + 1) * group - first : HEADS;
                const float *query = q + (m * H + first) * d;
                float *out = y + (m * H + first) * d, total[HEADS];
                for (long j = 0; j < seen; j += block)
                    apart(query, d, part(entry, blocks[j / block] * block * width + k * d), width, 0, seen - j < block ? seen - j : block, heads,
                          d, score + j, T);
                for (long h = 0; h < heads; h++) total[h] = softmax_numerators(score + h * T, seen, scale, &(float){0});
                memset(out, 0, heads * d * sizeof(float));
                for (long j = 0; j < seen; j += block)
                    mix(heads, score + j, T, entry, blocks[j / block] * block * width + (K + k) * d, width,
                        seen - j < block ? seen - j : block, d, out, d);
                for (long h = 0; h < heads; h++)
                    for (long i = 0; i < d; i++) out[h * d + i] /= total[h];
            }
        }
    }
}

/* V3's choice of experts (section 2.1.2). choice = score + bias; groups are kept by the sum of their two best (`pairs`) or by their
 * best; ties go to the lower index. -> ids, weights [T, K], scores [T, E]. */
static void route(const float *logits, const float *bias, int sigmoid, int pairs, int normalise, float factor, int64_t *ids, float *weights,
           float *scores, long T, long E, long K, long G, long kept_groups) {
    long size = E / G;
    float choice[E], group[G];
    for (long t = 0; t < T; t++) {
        const float *logit = logits + t * E;
        float *score = scores + t * E, most = -INFINITY, total = 0;
        for (long e = 0; e < E; e++) most = logit[e] > most ? logit[e] : most;
        for (long e = 0; e < E; e++) score[e] = sigmoid ? 1.0f / (1.0f + expf(-logit[e])) : expf(logit[e] - most);
        if (!sigmoid) {
            for (long e = 0; e < E; e++) total += score[e];
            for (long e = 0; e < E; e++) score[e] /= total;
        }
        for (long e = 0; e < E; e++) choice[e] = score[e] + (bias ? bias[e] : 0.0f);
        if (G > 1) {
            for (long g = 0; g < G; g++) {
                float best = -INFINITY, second = -INFINITY;
                for (long e = g * size; e < (g + 1) * size; e++) {
                    if (choice[e] > best) second = best, best = choice[e];
                    else if (choice[e] > second) second = choice[e];
                }
                group[g] = pairs ? best + second : best;
            }
            char keep[G];
            memset(keep, 0, G);
            for (long k = 0; k < kept_groups; k++) {
                long best = -1;
                for (long g = 0; g < G; g++)
                    if (!keep[g] && (best < 0 || group[g] > group[best])) best = g;
                keep[best] = 1;
            }
            for (long e = 0; e < E; e++)
                if (!keep[e / size]) choice[e] = -INFINITY;
        }
        total = 0;
        for (long k = 0; k < K; k++) {
            long best = 0;
            for (long e = 1; e < E; e++)
                if (choice[e] > choice[best]) best = e;
            ids[t * K + k] = best;
            choice[best] = -INFINITY;
            total += weights[t * K + k] = score[best];
        }
        for (long k = 0; k < K; k++) weights[t * K + k] *= normalise ? factor / (total + 1e-20f) : factor;
    }
}

/* What attention makes of x [M, D] first: queries q [M, H, N + R] with their rotary part turned, and the entries [M, C + R] that the
 * cache keeps, [latent normed | shared key turned]. q_a NULL: queries come from x directly, else through Q compressed numbers. */
void latent_projections(const float *x, const void *q_a, const float *q_norm, const void *q_b, const void *kv_a, const float *kv_norm, int half,
                        float eps, const float *turn, int interleave, float *q, float *entries, long M, long D, long Q, long H, long N,
                        long R, long C) {
    long width = N + R;
    if (q_a) {
        float *compressed = malloc(M * Q * sizeof(float));
        linear(x, D, q_a, half, compressed, M, Q, D);
        rms_norm(compressed, Q, q_norm, eps, compressed, Q, NULL, M, Q);
        linear(compressed, Q, q_b, half, q, M, H * width, Q);
        free(compressed);
    } else
        linear(x, D, q_b, half, q, M, H * width, D);
    rotate(q + N, H * width, width, turn, interleave, q + N, H * width, width, M, H, R);
    linear(x, D, kv_a, half, entries, M, C + R, D);
    rms_norm(entries, C + R, kv_norm, eps, entries, C + R, NULL, M, C);
    rotate(entries + C, C + R, R, turn, interleave, entries + C, C + R, R, M, 1, R);
}

/* A whole DeepSeekMoE layer: choose, then routed and shared experts (`shared_width` 0: none). */
void mixture(const float *x, const void *router, const float *bias, int sigmoid, int pairs, int normalise, float factor, const void *gate_up,
             const void *down, const void *shared_gate_up, const void *shared_down, int half, int64_t *ids, float *weights, float *scores,
             float *y, long T, long D, long E, long K, long G, long kept_groups, long I, long shared_width) {
    linear(x, D, router, half, scores, T, E, D);
    route(scores, bias, sigmoid, pairs, normalise, factor, ids, weights, scores, T, E, K, G, kept_groups);
    expert_mlp(x, ids, weights, gate_up, down, half, y, T, K, E, D, I);
    if (!shared_width) return;
    float *shared = malloc(T * D * sizeof(float));
    expert_mlp(x, NULL, NULL, shared_gate_up, shared_down, half, shared, T, 1, 1, D, shared_width);
    for (long i = 0; i < T * D; i++) y[i] += shared[i];
    free(shared);
}
