// Products of weights with few rows: y[row] = W x[row] for at most 16 rows, at the speed of memory.
//
// Floor: the weight's n * k * 2 bytes once. A block owns 16 outputs and all of k; its warps take turns along k (64
// elements each), so an output is always the same chain of additions, whatever the number of rows: results do not
// depend on the company of a row.
//
// The weight is operand A as it lies in memory: lane (g, c) reads 16 bytes, elements 8c.. of a 32-wide step of rows g
// and g + 8. Which element is called which k is free as long as both operands agree, so those 8 elements serve two
// products of depth 16 without moving.

// ADD: to the residual stream, which is f32, with a copy in bf16. ROPE: what comes behind the product of queries, keys and
// values, for heads without a norm of their own.
enum Out { STORE, STORE_F32, ADD, SILU_MUL, ROPE };

constexpr int GROUP = 64;
constexpr int STEPS = GROUP / 32;

struct Weights {
    uint4 a[STEPS], b[STEPS];
};

__device__ __forceinline__ void load_group(Weights& w, const u16* row0, const u16* row1, int at, int k) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
        int kk = at + j * 32;
        if (kk < k) {
            w.a[j] = load_stream(row0 + kk);
            w.b[j] = load_stream(row1 + kk);
        } else {
            w.a[j] = make_uint4(0, 0, 0, 0);
            w.b[j] = make_uint4(0, 0, 0, 0);
        }
    }
}

__device__ __forceinline__ u32 scale_pair(u32 x, u32 w, float& squares) {
    float lo = low_f32(x), hi = high_f32(x);
    squares = fmaf(lo, lo, squares);
    squares = fmaf(hi, hi, squares);
    return pack_bf16(lo * low_f32(w), hi * high_f32(w));
}

// TILES: groups of 8 rows. `stride`: outputs of a row of `out`. `late`: the next kernel may start when the weights are
// read. NORM: the rows are normalised on the way, y = W (x * norm) * rstd(x).
template <int WARPS, int TILES, int OUT, bool NORM>
__device__ __forceinline__ void skinny(const u16* __restrict__ weight, const u16* __restrict__ x,
                                       const u16* __restrict__ norm, float eps, void* __restrict__ out,
                                       u16* __restrict__ copy, int n, int k, int rows, int stride, int late,
                                       const RopeArgs* rope) {
    __shared__ float4 partial[WARPS][TILES][32];
    __shared__ float squares_of[WARPS][TILES * 8];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;

    // With SILU_MUL the block's 16 outputs are 8 of the gate and the same 8 of `up`, n rows further down; with ROPE 8 of
    // the first half of a head and their partners in the other half.
    int r0 = OUT == SILU_MUL ? blockIdx.x * 8 + g : blockIdx.x * 16 + g;
    int r1 = OUT == SILU_MUL ? r0 + n : r0 + 8;
    if (OUT == ROPE) {
        const int of_head = rope->head_dim / 16;
        r0 = blockIdx.x / of_head * rope->head_dim + blockIdx.x % of_head * 8 + g;
        r1 = r0 + rope->head_dim / 2;
    }
    const int last = OUT == SILU_MUL ? 2 * n - 1 : n - 1;
    const u16* row0 = weight + (size_t)min(r0, last) * k + c * 8;
    const u16* row1 = weight + (size_t)min(r1, last) * k + c * 8;

    const int groups = (k + GROUP - 1) / GROUP;
    Weights now, next;
    int group = warp;
    load_group(now, row0, row1, group * GROUP, group < groups ? k : 0);
    wait_for_inputs();
    if (!late) let_dependents_start();

    float acc[TILES][4] = {};
    float squares[TILES] = {};
    while (group < groups) {
        const int at = group * GROUP;
        group += WARPS;
        load_group(next, row0, row1, group * GROUP, group < groups ? k : 0);
#pragma unroll
        for (int j = 0; j < STEPS; j++) {
            const int kk = at + j * 32 + c * 8;
            if (at + j * 32 < k) {
                uint4 scale;
                if (NORM) scale = *(const uint4*)(norm + kk);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    uint4 b = make_uint4(0, 0, 0, 0);
                    if (t * 8 + g < rows) b = *(const uint4*)(x + (size_t)(t * 8 + g) * k + kk);
                    if (NORM) {
                        b.x = scale_pair(b.x, scale.x, squares[t]);
                        b.y = scale_pair(b.y, scale.y, squares[t]);
                        b.z = scale_pair(b.z, scale.z, squares[t]);
                        b.w = scale_pair(b.w, scale.w, squares[t]);
                    }
                    mma_16816(acc[t], now.a[j].x, now.b[j].x, now.a[j].y, now.b[j].y, b.x, b.y);
                    mma_16816(acc[t], now.a[j].z, now.b[j].z, now.a[j].w, now.b[j].w, b.z, b.w);
                }
            }
        }
        now = next;
    }

    if (late) let_dependents_start();
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        partial[warp][t][lane] = make_float4(acc[t][0], acc[t][1], acc[t][2], acc[t][3]);
        if (NORM) {
            float s = squares[t];
            s += __shfl_xor_sync(0xffffffffu, s, 1);
            s += __shfl_xor_sync(0xffffffffu, s, 2);
            if (c == 0) squares_of[warp][t * 8 + g] = s;
        }
    }
    __syncthreads();
    if (warp >= TILES) return;
    float4 sum = partial[0][warp][lane];
#pragma unroll 4
    for (int i = 1; i < WARPS; i++) {
        float4 p = partial[i][warp][lane];
        sum.x += p.x, sum.y += p.y, sum.z += p.z, sum.w += p.w;
    }
    const int t0 = warp * 8 + 2 * c;
    if (NORM) {
        float s0 = 0.0f, s1 = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; i++) s0 += squares_of[i][t0], s1 += squares_of[i][t0 + 1];
        s0 = rsqrtf(s0 / (float)k + eps), s1 = rsqrtf(s1 / (float)k + eps);
        sum.x *= s0, sum.z *= s0, sum.y *= s1, sum.w *= s1;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = t0 + i;
        if (row >= rows) break;
        const float v0 = i ? sum.y : sum.x, v1 = i ? sum.w : sum.z;
        const size_t at = (size_t)row * stride;
        if (OUT == SILU_MUL) {
            if (r0 < n) ((u16*)out)[at + r0] = round_bf16(v0 / (1.0f + __expf(-v0)) * v1);
        } else if (OUT == STORE_F32) {
            if (r0 < n) ((float*)out)[at + r0] = v0;
            if (r1 < n) ((float*)out)[at + r1] = v1;
        } else if (OUT == ADD) {
            float* o = (float*)out;
            if (r0 < n) copy[at + r0] = round_bf16(o[at + r0] += v0);
            if (r1 < n) copy[at + r1] = round_bf16(o[at + r1] += v1);
        } else if (OUT == ROPE) {
            if (r1 >= n) continue;
            const int head = r0 / rope->head_dim, j = r0 % rope->head_dim, half = rope->head_dim / 2;
            float a = v0, b = v1;
            if (rope->bias) a += bf16_f32(rope->bias[r0]), b += bf16_f32(rope->bias[r1]);
            if (head < rope->q_heads + rope->kv_heads) {
                const float2 angle = rope->angles[(size_t)rope->row_position[row] * half + j];
                const float turned = a * angle.x - b * angle.y;
                b = b * angle.x + a * angle.y, a = turned;
            }
            u16* to = rope_target(*rope, (u16*)out, row, head) + j;
            to[0] = round_bf16(a), to[half] = round_bf16(b);
        } else {
            if (r0 < n) ((u16*)out)[at + r0] = round_bf16(v0);
            if (r1 < n) ((u16*)out)[at + r1] = round_bf16(v1);
        }
    }
}

#define SKINNY(NAME, WARPS, BLOCKS, TILES, OUT, NORM)                                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)                                                  \
        NAME(const u16* weight, const u16* x, const u16* norm, float eps, void* out, u16* copy, int n, int k,         \
             int rows, int stride, int late) {                                                                        \
        skinny<WARPS, TILES, OUT, NORM>(weight, x, norm, eps, out, copy, n, k, rows, stride, late, nullptr);          \
    }
#define SKINNY_ROPE(NAME, WARPS, BLOCKS, TILES)                                                                       \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)                                                  \
        NAME(const u16* weight, const u16* x, const u16* norm, float eps, void* out, u16* copy, int n, int k,         \
             int rows, int stride, int late, const __grid_constant__ RopeArgs rope) {                                 \
        skinny<WARPS, TILES, ROPE, true>(weight, x, norm, eps, out, copy, n, k, rows, stride, late, &rope);           \
    }

SKINNY(skinny8_norm, 8, 3, 1, STORE, true)
SKINNY(skinny16_norm, 8, 3, 2, STORE, true)
SKINNY_ROPE(skinny8_norm_rope, 8, 3, 1)
SKINNY_ROPE(skinny16_norm_rope, 8, 3, 2)
SKINNY(skinny8_norm_f32, 8, 3, 1, STORE_F32, true)
SKINNY(skinny16_norm_f32, 8, 3, 2, STORE_F32, true)
SKINNY(skinny8_norm_silu_mul, 8, 3, 1, SILU_MUL, true)
SKINNY(skinny16_norm_silu_mul, 8, 3, 2, SILU_MUL, true)
// They have few outputs: twice the warps keep as many loads on their way.
SKINNY(skinny8_add, 16, 2, 1, ADD, false)
SKINNY(skinny16_add, 16, 1, 2, ADD, false)
