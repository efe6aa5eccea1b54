// Products of weights with up to 128 rows on Hopper: y[row] = W x[row], weights at the speed of memory.
//
// Floor: the weight's n * k * 2 bytes once; 2 * n * k operations a row, which up to 128 rows take less time than the
// bytes.
//
// The weight is operand A of the warpgroup products (64 outputs), the rows are operand B (N of them), so a step of 64
// along k brings a box of 64 outputs for each warpgroup and one of N rows into a ring in shared memory. One warp fills the
// ring: with weights before the kernel in front has ended, with rows after. `gridDim.y` blocks, a cluster, share k: their
// sums meet in shared memory, and each writes a part of the rows.
//
// A norm has no launch of its own. y = W (x * gain) / rms(x): whoever adds to the residual stream leaves x * gain in bf16
// and the squares of x, summed over as many outputs as a block has; whoever reads it divides its sums.

struct StreamArgs {
    void* out;               // [rows][stride]
    const float* squares;    // of the rows, [row][SQUARES], `num_squares` of them; or none: no norm in front
    u16* copy;               // ADD: bf16 of what is in `out` then, times `gain`
    const u16* gain;
    float* new_squares;      // ADD: [row][SQUARES]
    int n, k, steps, rows, stride, num_squares; // steps: of 64 along k
    float eps;
    RopeArgs rope;
};

// The order is that of the host's table.
enum StreamOut { STORE, STORE_F32, ADD, SILU_MUL, ROPE };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define R4 "%0,%1,%2,%3"
#define R8 R4 ",%4,%5,%6,%7"
#define R16 R8 ",%8,%9,%10,%11,%12,%13,%14,%15"

// d (64 x N) += a * b^T, both in shared memory, depth 16.
__device__ __forceinline__ void outputs_by_rows(float (&d)[4], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {" R4 "}, %4, %5, 1, 1, 1, 0, 0;"
                 : F4(d, 0)
                 : "l"(a), "l"(b));
}
__device__ __forceinline__ void outputs_by_rows(float (&d)[8], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {" R8 "}, %8, %9, 1, 1, 1, 0, 0;"
                 : F4(d, 0), F4(d, 4)
                 : "l"(a), "l"(b));
}
__device__ __forceinline__ void outputs_by_rows(float (&d)[16], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" R16 "}, %16, %17, 1, 1, 1, 0, 0;"
                 : F16(d, 0)
                 : "l"(a), "l"(b));
}
__device__ __forceinline__ void outputs_by_rows(float (&d)[32], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 1, 1, 1, 0, 0;"
                 : F16(d, 0), F16(d, 16)
                 : "l"(a), "l"(b));
}
__device__ __forceinline__ void outputs_by_rows(float (&d)[64], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, %64, %65, 1, 1, 1, 0, 0;"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48)
                 : "l"(a), "l"(b));
}

__device__ __forceinline__ float4 load_of_block(u32 at, u32 rank) {
    float4 v;
    asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %4, %5;\n"
                 "ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [there];\n}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at), "r"(rank));
    return v;
}
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// GROUPS: warpgroups, of 64 outputs each.
template <int N, int GROUPS, int STAGES, int OUT>
__device__ __forceinline__ void stream(const TensorMap& weight, const TensorMap& x, const StreamArgs& p) {
    constexpr int OUTPUTS = 64 * GROUPS, BOX = 64 * 128, W_BYTES = OUTPUTS * 128, STAGE = W_BYTES + N * 128;
    constexpr int WORKERS = 128 * GROUPS;
    // With SILU_MUL the first half of a block's outputs is of the gate, the other the same of `up`, n further down.
    constexpr int OWN = OUT == SILU_MUL ? OUTPUTS / 2 : OUTPUTS;
    constexpr int PITCH = OUTPUTS + 4;
    static_assert(N * PITCH * 4 <= STAGES * STAGE, "the sums must fit in the ring");
    static_assert(GROUPS == 2 || OUT != SILU_MUL && OUT != ROPE, "a block of 64 outputs has no pairs");
    extern __shared__ __align__(1024) u8 shared[];
    const u32 ring = shared_address(shared), bars = ring + STAGES * STAGE;
    float* scales = (float*)(shared + STAGES * (STAGE + 16));
    auto full = [&](int s) { return bars + s * 8; };
    auto empty = [&](int s) { return bars + (STAGES + s) * 8; };

    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const int parts = gridDim.y, part = blockIdx.y;
    const int begin = p.steps * part / parts, count = p.steps * (part + 1) / parts - begin;
    if (threadIdx.x == WORKERS) {
        for (int s = 0; s < STAGES; s++) barrier_init(full(s), 1), barrier_init(empty(s), 4 * GROUPS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    if (warp == 4 * GROUPS) {
        if (lane == 0) {
            const int first = blockIdx.x * OWN;
            auto weights = [&](int j) {
                const int s = j % STAGES;
                barrier_expect(full(s), STAGE);
#pragma unroll
                for (int i = 0; i < GROUPS; i++) {
                    const int y = OUT == SILU_MUL && i == 1 ? p.n + first : first + i * 64;
                    copy_box(ring + s * STAGE + i * BOX, &weight, (begin + j) * 64, y, full(s));
                }
            };
            auto rows = [&](int j) {
                const int s = j % STAGES;
                copy_box(ring + s * STAGE + W_BYTES, &x, (begin + j) * 64, 0, full(s));
            };
            const int ahead = min(count, STAGES);
            for (int j = 0; j < ahead; j++) weights(j);
            wait_for_inputs();
            for (int j = 0; j < ahead; j++) rows(j);
            for (int j = ahead; j < count; j++) {
                barrier_wait(empty(j % STAGES), (j / STAGES - 1) & 1);
                weights(j);
                rows(j);
            }
            let_dependents_start();
        }
        return;
    }

    const int group = warp >> 2;
    const int own_rows = part < p.rows ? (p.rows - part + parts - 1) / parts : 0;
    wait_for_inputs();
    if (p.squares) {
        // Four lanes a row.
        for (int i = threadIdx.x / 4; i < (own_rows + 7) / 8 * 8; i += WORKERS / 4) {
            const float* of_row = p.squares + (size_t)(part + parts * min(i, own_rows - 1)) * SQUARES;
            float sum = 0.0f;
#pragma unroll 8
            for (int j = lane & 3; j < p.num_squares; j += 4) sum += of_row[j];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if ((lane & 3) == 0 && i < own_rows) scales[i] = rsqrtf(sum / (float)p.k + p.eps);
        }
    } else {
        for (int i = threadIdx.x; i < own_rows; i += WORKERS) scales[i] = 1.0f;
    }
    float acc[N / 2];
#pragma unroll
    for (int e = 0; e < N / 2; e++) acc[e] = 0.0f;
    for (int j = 0; j < count; j++) {
        const int s = j % STAGES;
        const u32 at = ring + s * STAGE;
        barrier_wait(full(s), j / STAGES & 1);
        products_fence();
#pragma unroll
        for (int step = 0; step < 4; step++) {
            outputs_by_rows(acc, matrix(at + group * BOX + step * 32, 16, 1024),
                            matrix(at + W_BYTES + step * 32, 16, 1024));
        }
        products_commit();
        // The step before is done when this one is the only one on its way.
        products_wait<1>();
        if (j > 0 && lane == 0) barrier_arrive(empty((j - 1) % STAGES));
    }
    products_wait<0>();

    // Sums by row: [row][output], in the memory of the ring, which nobody fills any more.
    threads_sync(1, WORKERS);
    float* sums = (float*)shared;
    float* to_sums = sums + group * 64 + (warp & 3) * 16 + g;
#pragma unroll
    for (int e = 0; e < N / 2; e++) {
        const int row = e / 4 * 8 + 2 * c + (e & 1);
        if (row < p.rows) to_sums[row * PITCH + (e & 2) * 4] = acc[e];
    }
    if (parts > 1) {
        cluster_arrive();
        cluster_wait();
    } else {
        threads_sync(1, WORKERS);
    }

    constexpr int PER_ROW = OWN / 4;
    const int total = own_rows * PER_ROW;
    // Whole warps come along: lanes exchange what they have. AT_ONCE pieces of four outputs a thread, so that what they
    // need comes at the same time.
    constexpr int AT_ONCE = N > 32 && OUT != ADD ? 4 : N > 8 ? 2 : 1, SUMS = OUT == SILU_MUL ? 2 : 1;
    for (int start = threadIdx.x; start < (total + 31) / 32 * 32; start += WORKERS * AT_ONCE) {
        float4 v[AT_ONCE][SUMS], old[AT_ONCE];
        uint2 gain[AT_ONCE];
        int row[AT_ONCE], local[AT_ONCE];
        bool inside[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int i = start + u * WORKERS;
            row[u] = part + parts * (min(i, total - 1) / PER_ROW), local[u] = i % PER_ROW * 4;
            inside[u] = i < total && blockIdx.x * OWN + local[u] < p.n;
            if (OUT == ADD && inside[u]) {
                const int o = blockIdx.x * OWN + local[u];
                old[u] = *(const float4*)((const float*)p.out + (size_t)row[u] * p.stride + o);
                gain[u] = *(const uint2*)(p.gain + o);
            }
#pragma unroll
            for (int h = 0; h < SUMS; h++) {
                v[u][h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (parts == 1 && inside[u]) v[u][h] = *(const float4*)(sums + row[u] * PITCH + h * OWN + local[u]);
            }
        }
        if (parts > 1) {
            for (int rank = 0; rank < parts; rank += 2) {
                float4 t[AT_ONCE][SUMS][2];
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
#pragma unroll
                    for (int h = 0; h < SUMS; h++) {
                        const u32 at = shared_address(sums + row[u] * PITCH + h * OWN + local[u]);
                        t[u][h][0] = load_of_block(at, rank), t[u][h][1] = load_of_block(at, rank + 1);
                    }
                }
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
#pragma unroll
                    for (int h = 0; h < SUMS; h++) {
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            v[u][h].x += t[u][h][e].x, v[u][h].y += t[u][h][e].y;
                            v[u][h].z += t[u][h][e].z, v[u][h].w += t[u][h][e].w;
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int i = start + u * WORKERS;
            if (i >= (total + 31) / 32 * 32) break;
            const int o = blockIdx.x * OWN + local[u];
            const float scale = scales[(row[u] - part) / parts];
            const size_t at = (size_t)row[u] * p.stride + o;
            float4 w = v[u][0];
            w.x *= scale, w.y *= scale, w.z *= scale, w.w *= scale;
            if (OUT == SILU_MUL) {
                const float4 up = v[u][SUMS - 1];
                if (inside[u]) {
                    w.x = w.x / (1.0f + __expf(-w.x)) * (up.x * scale), w.y = w.y / (1.0f + __expf(-w.y)) * (up.y * scale);
                    w.z = w.z / (1.0f + __expf(-w.z)) * (up.z * scale), w.w = w.w / (1.0f + __expf(-w.w)) * (up.w * scale);
                    *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
                }
            } else if (OUT == ROPE) {
                // A warp has 128 outputs of one row: whole heads.
                rope_four(p.rope, w, (u16*)p.out, row[u], o, inside[u]);
            } else if (OUT == ADD) {
                float squares = 0.0f;
                if (inside[u]) {
                    w.x += old[u].x, w.y += old[u].y, w.z += old[u].z, w.w += old[u].w;
                    *(float4*)((float*)p.out + at) = w;
                    squares = w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
                    *(uint2*)(p.copy + at) = make_uint2(pack_bf16(w.x * low_f32(gain[u].x), w.y * high_f32(gain[u].x)),
                                                        pack_bf16(w.z * low_f32(gain[u].y), w.w * high_f32(gain[u].y)));
                }
#pragma unroll
                for (int lanes = 1; lanes < PER_ROW && lanes < 32; lanes *= 2) {
                    squares += __shfl_xor_sync(0xffffffffu, squares, lanes);
                }
                if (local[u] == 0 && i < total) p.new_squares[(size_t)row[u] * SQUARES + blockIdx.x] = squares;
            } else if (inside[u]) {
                if (OUT == STORE_F32) *(float4*)((float*)p.out + at) = w;
                if (OUT == STORE) *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
            }
        }
    }
    // Nobody leaves while others read its sums.
    if (parts > 1) {
        cluster_arrive();
        cluster_wait();
    }
}

#define STREAM(N, GROUPS, STAGES, BLOCKS, NAME, OUT)                                                                  \
    extern "C" __global__ void __launch_bounds__(128 * GROUPS + 32, BLOCKS)                                             \
        stream##N##_##NAME(const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,             \
                           const __grid_constant__ StreamArgs p) {                                                    \
        stream<N, GROUPS, STAGES, OUT>(weight, x, p);                                                                 \
    }
#else
#define STREAM(N, GROUPS, STAGES, BLOCKS, NAME, OUT)                                                                          \
    extern "C" __global__ void stream##N##_##NAME(const __grid_constant__ TensorMap,                                  \
                                                  const __grid_constant__ TensorMap,                                  \
                                                  const __grid_constant__ StreamArgs) {}
#endif

// Two blocks a multiprocessor. For products that have too few for that: `add_narrow`, blocks of 64 outputs, and `deep`, one
// block a multiprocessor with twice as many stages.
#define STREAMS(N, STAGES, NARROW_STAGES)                                                                             \
    STREAM(N, 2, STAGES, 2, store, STORE)                                                                             \
    STREAM(N, 2, STAGES, 2, store_f32, STORE_F32)                                                                     \
    STREAM(N, 2, STAGES, 2, add, ADD)                                                                                 \
    STREAM(N, 2, STAGES, 2, silu_mul, SILU_MUL)                                                                       \
    STREAM(N, 2, STAGES, 2, rope, ROPE)                                                                               \
    STREAM(N, 1, NARROW_STAGES, 2, add_narrow, ADD)                                                                   \
    STREAM(N, 2, 2 * STAGES, 1, add_deep, ADD)                                                                        \
    STREAM(N, 2, 2 * STAGES, 1, rope_deep, ROPE)

STREAMS(8, 6, 11)
STREAMS(16, 6, 10)
STREAMS(32, 5, 8)
STREAMS(64, 4, 6)
STREAMS(128, 3, 4)
