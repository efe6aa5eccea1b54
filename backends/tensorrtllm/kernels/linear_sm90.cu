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
                 : "r"(at), "r"(rank)
                 : "memory");
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
        for (int i = warp; i < own_rows; i += 4 * GROUPS) {
            const float* of_row = p.squares + (size_t)(part + parts * i) * SQUARES;
            float sum = 0.0f;
            for (int j = lane; j < p.num_squares; j += 32) sum += of_row[j];
            sum = warp_sum(sum);
            if (lane == 0) scales[i] = rsqrtf(sum / (float)p.k + p.eps);
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

    auto sum = [&](int row, int output) {
        const float* at = sums + row * PITCH + output;
        if (parts == 1) return *(const float4*)at;
        float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < parts) {
                const float4 v = load_of_block(shared_address(at), i);
                total.x += v.x, total.y += v.y, total.z += v.z, total.w += v.w;
            }
        }
        return total;
    };
    constexpr int PER_ROW = OWN / 4;
    const int total = own_rows * PER_ROW;
    // Whole warps come along: lanes exchange what they have.
    for (int i = threadIdx.x; i < (total + 31) / 32 * 32; i += WORKERS) {
        const int number = min(i, total - 1) / PER_ROW, row = part + parts * number, local = i % PER_ROW * 4;
        const int o = blockIdx.x * OWN + local;
        const bool inside = i < total && o < p.n;
        const float scale = scales[number];
        float4 v = sum(row, local);
        v.x *= scale, v.y *= scale, v.z *= scale, v.w *= scale;
        const size_t at = (size_t)row * p.stride + o;
        if (OUT == SILU_MUL) {
            float4 up = sum(row, OWN + local);
            up.x *= scale, up.y *= scale, up.z *= scale, up.w *= scale;
            if (inside) {
                v.x = v.x / (1.0f + __expf(-v.x)) * up.x, v.y = v.y / (1.0f + __expf(-v.y)) * up.y;
                v.z = v.z / (1.0f + __expf(-v.z)) * up.z, v.w = v.w / (1.0f + __expf(-v.w)) * up.w;
                *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
            }
        } else if (OUT == ROPE) {
            // A warp has 128 outputs of one row: whole heads.
            rope_four(p.rope, v, (u16*)p.out, row, o, inside);
        } else if (OUT == ADD) {
            float squares = 0.0f;
            if (inside) {
                float4* to = (float4*)((float*)p.out + at);
                const float4 old = *to;
                v.x += old.x, v.y += old.y, v.z += old.z, v.w += old.w;
                *to = v;
                squares = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
                const uint2 gain = *(const uint2*)(p.gain + o);
                *(uint2*)(p.copy + at) = make_uint2(pack_bf16(v.x * low_f32(gain.x), v.y * high_f32(gain.x)),
                                                    pack_bf16(v.z * low_f32(gain.y), v.w * high_f32(gain.y)));
            }
#pragma unroll
            for (int lanes = 1; lanes < PER_ROW && lanes < 32; lanes *= 2) {
                squares += __shfl_xor_sync(0xffffffffu, squares, lanes);
            }
            if (local == 0 && i < total) p.new_squares[(size_t)row * SQUARES + blockIdx.x] = squares;
        } else if (inside) {
            if (OUT == STORE_F32) *(float4*)((float*)p.out + at) = v;
            if (OUT == STORE) *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
        }
    }
    // Nobody leaves while others read its sums.
    if (parts > 1) {
        cluster_arrive();
        cluster_wait();
    }
}

#define STREAM(N, GROUPS, STAGES, NAME, OUT)                                                                          \
    extern "C" __global__ void __launch_bounds__(128 * GROUPS + 32, 2)                                                \
        stream##N##_##NAME(const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,             \
                           const __grid_constant__ StreamArgs p) {                                                    \
        stream<N, GROUPS, STAGES, OUT>(weight, x, p);                                                                 \
    }
#else
#define STREAM(N, GROUPS, STAGES, NAME, OUT)                                                                          \
    extern "C" __global__ void stream##N##_##NAME(const __grid_constant__ TensorMap,                                  \
                                                  const __grid_constant__ TensorMap,                                  \
                                                  const __grid_constant__ StreamArgs) {}
#endif

// Two blocks a multiprocessor. `add_narrow`: blocks of 64 outputs, for where there are few.
#define STREAMS(N, STAGES, NARROW_STAGES)                                                                             \
    STREAM(N, 2, STAGES, store, STORE)                                                                                \
    STREAM(N, 2, STAGES, store_f32, STORE_F32)                                                                        \
    STREAM(N, 2, STAGES, add, ADD)                                                                                    \
    STREAM(N, 2, STAGES, silu_mul, SILU_MUL)                                                                          \
    STREAM(N, 2, STAGES, rope, ROPE)                                                                                  \
    STREAM(N, 1, NARROW_STAGES, add_narrow, ADD)

STREAMS(8, 6, 11)
STREAMS(16, 6, 10)
STREAMS(32, 5, 8)
STREAMS(64, 4, 6)
STREAMS(128, 3, 4)
