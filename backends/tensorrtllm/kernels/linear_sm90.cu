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
#define R48 R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define R56 R48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define F64(d, i) F16(d, i), F16(d, i + 16), F16(d, i + 32), F16(d, i + 48)

// d (64 x N) += a * b^T, both in shared memory, depth 16; A, B: the numbers of these two operands.
#define PRODUCT(N, A, B, LIST, ...)                                                                                   \
    __device__ __forceinline__ void outputs_by_rows(float (&d)[A], u64 a, u64 b) {                                    \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST "}, %" #A ", %" #B             \
                     ", 1, 1, 1, 0, 0;"                                                                               \
                     : __VA_ARGS__                                                                                    \
                     : "l"(a), "l"(b));                                                                               \
    }
PRODUCT(8, 4, 5, R4, F4(d, 0))
PRODUCT(16, 8, 9, R8, F4(d, 0), F4(d, 4))
PRODUCT(32, 16, 17, R16, F16(d, 0))
PRODUCT(64, 32, 33, R32, F16(d, 0), F16(d, 16))
PRODUCT(96, 48, 49, R48, F16(d, 0), F16(d, 16), F16(d, 32))
PRODUCT(112, 56, 57, R56, F16(d, 0), F16(d, 16), F16(d, 32), F4(d, 48), F4(d, 52))
PRODUCT(128, 64, 65, R64, F64(d, 0))

// A box of weights, which are read once: they make way in the second-level cache before what is read again.
__device__ __forceinline__ void copy_box_once(u32 to, const TensorMap* map, int x, int y, u32 bar) {
    constexpr u64 EVICT_FIRST = 0x12f0000000000000ull;
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(bar), "r"(x), "r"(y), "l"(EVICT_FIRST)
        : "memory");
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

// Two units in the last place off at most, which bf16 does not see; a division to the last one takes several times as long.
__device__ __forceinline__ float silu(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

// Bytes of a row beside the ring: its scale, with ROPE also where it goes.
__device__ constexpr int row_bytes(int out) { return out == ROPE ? 12 : 4; }

// Steps of k on their way: as many as a multiprocessor's shared memory has room for beside the rows' bytes and what the
// system takes, 12 at most. That of the host's table.
__device__ constexpr int stages(int rows, int groups, int blocks, int out) {
    const int room = ((228 << 10) / blocks - 1024 - rows * row_bytes(out)) / ((64 * groups + rows) * 128 + 16);
    return room < 12 ? room : 12;
}

// GROUPS: warpgroups, of 64 outputs each. BLOCKS: on a multiprocessor.
template <int N, int GROUPS, int BLOCKS, int OUT>
__device__ __forceinline__ void stream(const TensorMap& weight, const TensorMap& x, const StreamArgs& p) {
    constexpr int STAGES = stages(N, GROUPS, BLOCKS, OUT);
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
    int2* places = (int2*)(scales + N); // ROPE: position and block
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
                    const u32 to = ring + s * STAGE + i * BOX;
                    // The head is slower with the hint.
                    if (OUT == STORE_F32) copy_box(to, &weight, (begin + j) * 64, y, full(s));
                    else copy_box_once(to, &weight, (begin + j) * 64, y, full(s));
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
    if (OUT == ROPE) {
        for (int i = threadIdx.x; i < own_rows; i += WORKERS) {
            const int row = part + parts * i, position = p.rope.row_position[row];
            const int* table = p.rope.tables + (size_t)p.rope.row_slot[row] * p.rope.table_width;
            places[i] = make_int2(position, table[position / p.rope.block_tokens]);
        }
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
    if (parts > 1) cluster_arrive();

    // A thread has four outputs, the same of each of its rows, ROWS rows further down in each turn. AT_ONCE rows in a turn, so
    // that what they need comes at the same time.
    constexpr int PER_ROW = OWN / 4, ROWS = WORKERS / PER_ROW, SUMS = OUT == SILU_MUL ? 2 : 1;
    constexpr int AT_ONCE = N > 64 && BLOCKS == 1 ? 4 : N > 8 ? 2 : 1;
    const int local = threadIdx.x % PER_ROW * 4, o = blockIdx.x * OWN + local;
    const bool is_output = o < p.n;
    uint2 gain = make_uint2(0, 0);
    if (OUT == ADD && is_output) gain = *(const uint2*)(p.gain + o);
    const RopeOutputs turn = OUT == ROPE ? rope_outputs(p.rope, o, is_output) : RopeOutputs{};
    if (parts > 1) {
        cluster_wait();
    } else {
        threads_sync(1, WORKERS);
    }
    for (int start = 0; start < own_rows; start += ROWS * AT_ONCE) {
        float4 v[AT_ONCE][SUMS], old[AT_ONCE], angles[AT_ONCE][2];
        const int first = start + threadIdx.x / PER_ROW;
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int index = min(first + u * ROWS, own_rows - 1);
            if (OUT == ADD && is_output) {
                old[u] = *(const float4*)((const float*)p.out + (size_t)(part + parts * index) * p.stride + o);
            }
            if (OUT == ROPE && is_output) rope_angles(p.rope, turn, places[index].x, angles[u]);
#pragma unroll
            for (int h = 0; h < SUMS; h++) {
                v[u][h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (parts == 1) v[u][h] = *(const float4*)(sums + index * PITCH + h * OWN + local);
            }
        }
        if (parts > 1) {
            for (int rank = 0; rank < parts; rank++) {
                float4 t[AT_ONCE][SUMS];
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
                    const float* of_row = sums + (part + parts * min(first + u * ROWS, own_rows - 1)) * PITCH + local;
#pragma unroll
                    for (int h = 0; h < SUMS; h++) t[u][h] = load_of_block(shared_address(of_row + h * OWN), rank);
                }
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
#pragma unroll
                    for (int h = 0; h < SUMS; h++) {
                        v[u][h].x += t[u][h].x, v[u][h].y += t[u][h].y;
                        v[u][h].z += t[u][h].z, v[u][h].w += t[u][h].w;
                    }
                }
            }
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int index = min(first + u * ROWS, own_rows - 1), row = part + parts * index;
            const bool inside = first + u * ROWS < own_rows && is_output;
            const float scale = scales[index];
            const size_t at = (size_t)row * p.stride + o;
            float4 w = v[u][0];
            w.x *= scale, w.y *= scale, w.z *= scale, w.w *= scale;
            if (OUT == SILU_MUL) {
                const float4 up = v[u][SUMS - 1];
                if (inside) {
                    w.x = silu(w.x) * (up.x * scale), w.y = silu(w.y) * (up.y * scale);
                    w.z = silu(w.z) * (up.z * scale), w.w = silu(w.w) * (up.w * scale);
                    *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
                }
            } else if (OUT == ROPE) {
                // A warp has 128 outputs of one row: whole heads.
                w = rope_turn(p.rope, turn, w, angles[u]);
                u16* to = rope_place(p.rope, turn, (u16*)p.out + at, places[index]);
                if (inside) *(uint2*)to = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
            } else if (OUT == ADD) {
                float squares = 0.0f;
                if (inside) {
                    w.x += old[u].x, w.y += old[u].y, w.z += old[u].z, w.w += old[u].w;
                    *(float4*)((float*)p.out + at) = w;
                    squares = w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
                    *(uint2*)(p.copy + at) = make_uint2(pack_bf16(w.x * low_f32(gain.x), w.y * high_f32(gain.x)),
                                                        pack_bf16(w.z * low_f32(gain.y), w.w * high_f32(gain.y)));
                }
#pragma unroll
                for (int lanes = 1; lanes < PER_ROW; lanes *= 2) {
                    squares += __shfl_xor_sync(0xffffffffu, squares, lanes);
                }
                if (local == 0 && inside) p.new_squares[(size_t)row * SQUARES + blockIdx.x] = squares;
            } else if (inside) {
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

#define STREAM(N, GROUPS, BLOCKS, NAME, OUT)                                                                           \
    extern "C" __global__ void __launch_bounds__(128 * GROUPS + 32, BLOCKS) stream##N##_##NAME(                        \
        const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,                                 \
        const __grid_constant__ StreamArgs p) {                                                                        \
        stream<N, GROUPS, BLOCKS, OUT>(weight, x, p);                                                                  \
    }
#else
#define STREAM(N, GROUPS, BLOCKS, NAME, OUT)                                                                           \
    extern "C" __global__ void stream##N##_##NAME(const __grid_constant__ TensorMap, const __grid_constant__ TensorMap, \
                                                  const __grid_constant__ StreamArgs) {}
#endif

// Blocks of 128 outputs, two a multiprocessor. Where these would be few: `deep`, one a multiprocessor with twice as much on its
// way, and `narrow`, of 64 outputs.
#define STREAMS(N)                                                                                                     \
    STREAM(N, 2, 2, store, STORE)                                                                                      \
    STREAM(N, 2, 2, store_f32, STORE_F32)                                                                              \
    STREAM(N, 2, 2, silu_mul, SILU_MUL)                                                                                \
    STREAM(N, 2, 1, add_deep, ADD)                                                                                     \
    STREAM(N, 1, 2, add_narrow, ADD)                                                                                   \
    STREAM(N, 2, 1, rope_deep, ROPE)

STREAMS(8)
STREAMS(16)
STREAMS(32)
STREAMS(64)
STREAMS(96)
STREAMS(112)
STREAMS(128)
