// Products of weights with few rows on Hopper: as linear.cu, with the weights brought by the copy engine.
//
// Floor: the weight's n * k * 2 bytes once.
//
// A block stays on its multiprocessor and takes every gridDim.x-th tile of 16 outputs. One warp keeps a ring of stages
// full, each 16 rows by 512 of k; it starts before the kernel in front has ended, since weights are never written. Eight
// warps take 64 of k each from every stage. An output is the same chain of additions whatever the number of rows.
//
// A stage's rows are 1088 bytes apart: eight lanes that read 16 bytes each (two rows, four pieces) meet 32 banks.

enum Out { STORE, STORE_F32, ADD, SILU_MUL };

constexpr int WARPS = 8, DEPTH = 512, ROW_BYTES = DEPTH * 2 + 64, STAGE_BYTES = 16 * ROW_BYTES;

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ u32 scale_pair(u32 x, u32 w, float& squares) {
    float lo = low_f32(x), hi = high_f32(x);
    squares = fmaf(lo, lo, squares);
    squares = fmaf(hi, hi, squares);
    return pack_bf16(lo * low_f32(w), hi * high_f32(w));
}

__device__ __forceinline__ uint4 load_shared(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}

template <int TILES, int OUT, bool NORM>
__device__ __forceinline__ void stream(const u16* __restrict__ weight, const u16* __restrict__ x,
                                       const u16* __restrict__ norm, float eps, void* __restrict__ out, int n, int k,
                                       int rows, int stride) {
    // As many as let the next kernel's block have its own beside this one's.
    constexpr int STAGES = TILES == 1 ? 6 : 5;
    extern __shared__ __align__(128) u8 ring[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    // Two sets in turn: one tile's sums are read while the next one's are written.
    __shared__ float4 partial[2][WARPS][TILES][32];
    __shared__ float squares_of[2][WARPS][TILES * 8];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const u32 base = shared_address(ring), bars = shared_address(barriers);
    auto full = [&](int s) { return bars + s * 8; };
    auto empty = [&](int s) { return bars + (STAGES + s) * 8; };
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(full(s), 1), barrier_init(empty(s), WARPS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    // With SILU_MUL a tile's 16 outputs are 8 of the gate and the same 8 of `up`, n rows further down.
    constexpr int OWN = OUT == SILU_MUL ? 8 : 16;
    const int tiles = (n + OWN - 1) / OWN, chunks = (k + DEPTH - 1) / DEPTH;

    if (warp == WARPS) {
        if (lane >= 16) return;
        int s = 0;
        u32 round = 0;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            const int own = tile * OWN + lane % OWN;
            const int row = OUT == SILU_MUL ? min(own, n - 1) + (lane / 8) * n : min(own, n - 1);
            const u16* from = weight + (size_t)row * k;
            for (int chunk = 0; chunk < chunks; chunk++) {
                const u32 bytes = min(DEPTH, k - chunk * DEPTH) * 2;
                if (round > 0) barrier_wait(empty(s), (round - 1) & 1);
                if (lane == 0) barrier_expect(full(s), 16 * bytes);
                __syncwarp(0xffff);
                copy_bulk(base + s * STAGE_BYTES + lane * ROW_BYTES, from + chunk * DEPTH, bytes, full(s));
                if (++s == STAGES) s = 0, round++;
            }
        }
        return;
    }

    wait_for_inputs();
    let_dependents_start();
    int s = 0;
    u32 parity = 0;
    int turn = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
        float acc[TILES][4] = {};
        float squares[TILES] = {};
        for (int chunk = 0; chunk < chunks; chunk++) {
            const int at = chunk * DEPTH + warp * 64 + c * 8;
            uint4 b[2][TILES], scale[2];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int kk = at + j * 32;
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    b[j][t] = make_uint4(0, 0, 0, 0);
                    if (kk < k && t * 8 + g < rows) b[j][t] = *(const uint4*)(x + (size_t)(t * 8 + g) * k + kk);
                }
                if (NORM) scale[j] = kk < k ? *(const uint4*)(norm + kk) : make_uint4(0, 0, 0, 0);
            }
            barrier_wait(full(s), parity);
            const u32 w = base + s * STAGE_BYTES + g * ROW_BYTES + (warp * 64 + c * 8) * 2;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                uint4 a0 = load_shared(w + j * 64), a1 = load_shared(w + 8 * ROW_BYTES + j * 64);
                // What lies behind the end of a short stage is of an earlier one, or nothing at all.
                if (at + j * 32 >= k) a0 = a1 = make_uint4(0, 0, 0, 0);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    uint4 y = b[j][t];
                    if (NORM) {
                        y.x = scale_pair(y.x, scale[j].x, squares[t]);
                        y.y = scale_pair(y.y, scale[j].y, squares[t]);
                        y.z = scale_pair(y.z, scale[j].z, squares[t]);
                        y.w = scale_pair(y.w, scale[j].w, squares[t]);
                    }
                    mma_16816(acc[t], a0.x, a1.x, a0.y, a1.y, y.x, y.y);
                    mma_16816(acc[t], a0.z, a1.z, a0.w, a1.w, y.z, y.w);
                }
            }
            __syncwarp();
            if (lane == 0) barrier_arrive(empty(s));
            if (++s == STAGES) s = 0, parity ^= 1;
        }

#pragma unroll
        for (int t = 0; t < TILES; t++) {
            partial[turn][warp][t][lane] = make_float4(acc[t][0], acc[t][1], acc[t][2], acc[t][3]);
            if (NORM) {
                float q = squares[t];
                q += __shfl_xor_sync(0xffffffffu, q, 1);
                q += __shfl_xor_sync(0xffffffffu, q, 2);
                if (c == 0) squares_of[turn][warp][t * 8 + g] = q;
            }
        }
        threads_sync(1, WARPS * 32);
        if (warp >= TILES) continue;
        float4 sum = partial[turn][0][warp][lane];
#pragma unroll
        for (int i = 1; i < WARPS; i++) {
            float4 p = partial[turn][i][warp][lane];
            sum.x += p.x, sum.y += p.y, sum.z += p.z, sum.w += p.w;
        }
        const int t0 = warp * 8 + 2 * c, r0 = tile * OWN + g, r1 = r0 + 8;
        if (NORM) {
            float s0 = 0.0f, s1 = 0.0f;
#pragma unroll
            for (int i = 0; i < WARPS; i++) s0 += squares_of[turn][i][t0], s1 += squares_of[turn][i][t0 + 1];
            s0 = rsqrtf(s0 / (float)k + eps), s1 = rsqrtf(s1 / (float)k + eps);
            sum.x *= s0, sum.z *= s0, sum.y *= s1, sum.w *= s1;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = t0 + i;
            if (row >= rows) break;
            const float v0 = i ? sum.y : sum.x, v1 = i ? sum.w : sum.z;
            const size_t to = (size_t)row * stride;
            if (OUT == SILU_MUL) {
                if (r0 < n) ((u16*)out)[to + r0] = round_bf16(v0 / (1.0f + __expf(-v0)) * v1);
            } else if (OUT == STORE_F32) {
                if (r0 < n) ((float*)out)[to + r0] = v0;
                if (r1 < n) ((float*)out)[to + r1] = v1;
            } else if (OUT == ADD) {
                u16* o = (u16*)out;
                if (r0 < n) o[to + r0] = round_bf16(bf16_f32(o[to + r0]) + v0);
                if (r1 < n) o[to + r1] = round_bf16(bf16_f32(o[to + r1]) + v1);
            } else {
                if (r0 < n) ((u16*)out)[to + r0] = round_bf16(v0);
                if (r1 < n) ((u16*)out)[to + r1] = round_bf16(v1);
            }
        }
    }
}

#define STREAM(NAME, TILES, OUT, NORM)                                                                                \
    extern "C" __global__ void __launch_bounds__(WARPS * 32 + 32, 2)                                                  \
        NAME(const u16* weight, const u16* x, const u16* norm, float eps, void* out, int n, int k, int rows,          \
             int stride) {                                                                                            \
        stream<TILES, OUT, NORM>(weight, x, norm, eps, out, n, k, rows, stride);                                      \
    }
#else
#define STREAM(NAME, TILES, OUT, NORM)                                                                                \
    extern "C" __global__ void NAME(const u16*, const u16*, const u16*, float, void*, int, int, int, int) {}
#endif

STREAM(stream8_norm, 1, STORE, true)
STREAM(stream16_norm, 2, STORE, true)
STREAM(stream8_norm_f32, 1, STORE_F32, true)
STREAM(stream16_norm_f32, 2, STORE_F32, true)
STREAM(stream8_norm_silu_mul, 1, SILU_MUL, true)
STREAM(stream16_norm_silu_mul, 2, SILU_MUL, true)
STREAM(stream8_add, 1, ADD, false)
STREAM(stream16_add, 2, ADD, false)
