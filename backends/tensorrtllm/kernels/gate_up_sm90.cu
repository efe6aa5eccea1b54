// Gate, up and SiLU of more than 128 rows on Hopper: y[row] = silu(G x[row]) * U x[row], at the speed of the tensor cores.
//
// Floor: 4 * n * k operations a row; for few hundred rows the weights' 4 * n * k bytes once.
//
// A tile is 128 rows (operand A, 64 for each of two warpgroups) by BN outputs (operand B), the first half of the gate, the
// other the same of `up`: a thread has both sums of what it writes. One warp fills a ring in shared memory with steps of 64
// along k, over the ends of tiles: the next tile's first steps come while this one's results are written. Two blocks, a
// cluster, take tiles that lie below each other; each brings one half of the weights for both. The grid is as large as the
// GPU, and its blocks go from tile to tile.
//
// Tiles are taken down `group` pairs of rows before they go on to the next outputs: what is multiplied at the same time is
// nearly square, and the second-level cache is asked for least.

struct TilesArgs {
    u16* out;                   // [rows][n]
    int n, steps, rows;         // steps: of 64 along k
    int pairs, columns, group;  // of tiles: pairs along rows, along outputs; pairs that are taken together
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define R96 R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define R112 R96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define R128 R112 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// d (64 x N) = a * b^T (+ d if `add`), both in shared memory, depth 16.
__device__ __forceinline__ void rows_by_outputs(float (&d)[112], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %114, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {" R112 "}, %112, %113, p, 1, 1, 0, 0;\n}"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48), F16(d, 64), F16(d, 80), F16(d, 96)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void rows_by_outputs(float (&d)[128], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" R128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48), F16(d, 64), F16(d, 80), F16(d, 96), F16(d, 112)
                 : "l"(a), "l"(b), "r"(add));
}

// 1 + e^v, at most 2^60: two of them have a product, and one division serves both.
__device__ __forceinline__ float one_and_exp(float v) { return 1.0f + exp2_fast(fminf(v * 1.4426950408889634f, 60.0f)); }
__device__ __forceinline__ float reciprocal(float v) {
    float out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
    return out;
}

// To the shared memory of both blocks of a cluster, and their barriers.
__device__ __forceinline__ void copy_box_to_both(u32 to, const TensorMap* map, int x, int y, u32 bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(bar), "r"(x), "r"(y), "h"((u16)3)
        : "memory");
}
// At the barrier of a block of the cluster. What was read by products needs no fence, and `.release.cluster` would be one of
// the whole GPU: a microsecond a step.
__device__ __forceinline__ void barrier_arrive_at(u32 bar, u32 rank) {
    asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(bar),
                 "r"(rank)
                 : "memory");
}
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

template <int BN, int STAGES>
__device__ __forceinline__ void gate_up(const TensorMap& weight, const TensorMap& x, const TilesArgs& p) {
    constexpr int X_BYTES = 128 * 128, HALF = BN / 2 * 128, STAGE = X_BYTES + 2 * HALF;
    // A warp's 16 rows of results, before they are written in pieces of 16 bytes.
    constexpr int PITCH = BN + 16, STAGING = 16 * PITCH, PIECES = BN / 16;
    extern __shared__ __align__(1024) u8 shared[];
    const u32 ring = shared_address(shared), bars = ring + STAGES * STAGE + 8 * STAGING;
    auto full = [&](int s) { return bars + s * 8; };
    auto empty = [&](int s) { return bars + (STAGES + s) * 8; };

    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warpgroup = threadIdx.x >> 7;
    const int rank = blockIdx.y, total = p.pairs * p.columns;
    if (threadIdx.x == 0) {
        // A warp of the four warpgroups of both blocks each says when it is done.
        for (int s = 0; s < STAGES; s++) barrier_init(full(s), 1), barrier_init(empty(s), 16);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_sync();

    auto locate = [&](int tile, int& row, int& column) {
        const int of_group = p.group * p.columns, first = tile / of_group * p.group, in_group = tile % of_group;
        const int height = min(p.group, p.pairs - first);
        row = (first + in_group % height) * 256 + rank * 128, column = in_group / height * (BN / 2);
    };

    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) {
            auto weights = [&](int column, int j, int s) {
                const u32 to = ring + s * STAGE + X_BYTES + rank * HALF;
                copy_box_to_both(to, &weight, j * 64, column + rank * p.n, full(s));
            };
            int row, column;
            locate(blockIdx.x, row, column);
            // The first steps: weights before the kernel in front has ended.
            const int ahead = min(p.steps, STAGES);
            for (int j = 0; j < ahead; j++) {
                barrier_expect(full(j), STAGE);
                weights(column, j, j);
            }
            wait_for_inputs();
            for (int j = 0; j < ahead; j++) copy_box(ring + j * STAGE, &x, j * 64, row, full(j));
            int done = ahead, s = ahead % STAGES, round = ahead / STAGES;
            for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
                locate(tile, row, column);
                for (int j = done; j < p.steps; j++) {
                    if (round > 0) barrier_wait(empty(s), (round - 1) & 1);
                    barrier_expect(full(s), STAGE);
                    copy_box(ring + s * STAGE, &x, j * 64, row, full(s));
                    weights(column, j, s);
                    if (++s == STAGES) s = 0, round++;
                }
                done = 0;
            }
            let_dependents_start();
        }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        const int group = warpgroup - 1, g = lane >> 2, c = lane & 3;
        u8* staging = shared + STAGES * STAGE + (warp - 4) * STAGING;
        float acc[BN / 2];
        int s = 0, phase = 0;
        wait_for_inputs();
        for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
            int first, column;
            locate(tile, first, column);
            first += group * 64 + (warp & 3) * 16;
            int before = 0;
            for (int j = 0; j < p.steps; j++) {
                barrier_wait(full(s), phase);
                const u32 at = ring + s * STAGE;
                products_fence();
#pragma unroll
                for (int step = 0; step < 4; step++) {
                    rows_by_outputs(acc, matrix(at + group * 64 * 128 + step * 32, 16, 1024),
                                    matrix(at + X_BYTES + step * 32, 16, 1024), j > 0 || step > 0);
                }
                products_commit();
                // The step before is done when this one is the only one on its way.
                products_wait<1>();
                if (j > 0 && lane < 2) barrier_arrive_at(empty(before), lane);
                before = s;
                if (++s == STAGES) s = 0, phase ^= 1;
            }
            products_wait<0>();
            if (lane < 2) barrier_arrive_at(empty(before), lane);

            u8* own = staging + g * PITCH + c * 4;
#pragma unroll
            for (int i = 0; i < BN / 4; i += 2) {
                const float g0 = acc[i], g1 = acc[i + 1], u0 = acc[i + BN / 4], u1 = acc[i + 1 + BN / 4];
                const float d0 = one_and_exp(-g0), d1 = one_and_exp(-g1), both = reciprocal(d0 * d1);
                *(u32*)(own + (i & 2) * 4 * PITCH + i / 4 * 16) = pack_bf16(g0 * u0 * (d1 * both), g1 * u1 * (d0 * both));
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < PIECES / 2; i++) {
                const int at = i * 32 + lane, r = at / PIECES, piece = at % PIECES;
                const uint4 v = *(const uint4*)(staging + r * PITCH + piece * 16);
                const int row = first + r, o = column + piece * 8;
                if (row < p.rows && o < p.n) *(uint4*)(p.out + (size_t)row * p.n + o) = v;
            }
            __syncwarp();
        }
    }
    // Nobody leaves while the other copies into its memory or counts on its barriers.
    cluster_sync();
}

#define GATE_UP(BN, STAGES)                                                                                           \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                              \
        gate_up_tiles##BN(const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,              \
                          const __grid_constant__ TilesArgs p) {                                                      \
        gate_up<BN, STAGES>(weight, x, p);                                                                            \
    }
#else
#define GATE_UP(BN, STAGES)                                                                                           \
    extern "C" __global__ void gate_up_tiles##BN(const __grid_constant__ TensorMap, const __grid_constant__ TensorMap, \
                                                 const __grid_constant__ TilesArgs) {}
#endif

GATE_UP(256, 4)
GATE_UP(224, 4)
