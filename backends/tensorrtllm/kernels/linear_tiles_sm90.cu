// Products of weights with more than 128 rows on Hopper: y[row] = W x[row], at the speed of the tensor cores.
//
// Floor: 2 * n * k operations a row; for few hundred rows the weight's n * k * 2 bytes once.
//
// A tile is 128 rows (operand A, 64 for each of two warpgroups) by BN outputs (operand B). One warp fills a ring in shared
// memory with steps of 64 along k, over the ends of tiles: the next tile's first steps come while this one's results are
// written. Two blocks, a cluster, take tiles that lie below each other; each brings one half of the weights for both. The
// grid is as large as the GPU, and its blocks go from tile to tile.
//
// Tiles are taken down `group` pairs of rows before they go on to the next outputs: what is multiplied at the same time is
// nearly square, and the second-level cache is asked for least.

struct TilesArgs {
    void* out;               // [rows][stride]
    const float* squares;    // of the rows, [row][SQUARES], `num_squares` of them; or none: no norm in front
    u16* copy;               // ADD: bf16 of what is in `out` then, times `gain`; or none
    const u16* gain;
    float* new_squares;      // ADD: [row][SQUARES], one for each tile
    int n, k, steps, rows, stride, num_squares; // steps: of 64 along k
    float eps;
    int pairs, columns, group; // of tiles: pairs along rows, along outputs; pairs that are taken together
};

// The order is that of the host's table.
enum TilesOut { STORE, ADD, SILU_MUL };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define R96 R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define R112 R96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define R128 R112 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// d (64 x N) = a * b^T (+ d if `add`), both in shared memory, depth 16.
__device__ __forceinline__ void rows_by_outputs(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void rows_by_outputs(float (&d)[96], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" R96 "}, %96, %97, p, 1, 1, 0, 0;\n}"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48), F16(d, 64), F16(d, 80)
                 : "l"(a), "l"(b), "r"(add));
}
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

// To the shared memory of two blocks of a cluster, a bit of `blocks` each, and their barriers.
__device__ __forceinline__ void copy_box_to(int blocks, u32 to, const TensorMap* map, int x, int y, u32 bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(bar), "r"(x), "r"(y), "h"((u16)blocks)
        : "memory");
}
__device__ __forceinline__ void barrier_arrive_at(u32 bar, u32 rank) {
    asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(bar),
                 "r"(rank)
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
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where a warp puts 16 rows of half a tile's outputs, in bf16: over shared memory, so that rows are written in pieces of 16
// bytes.
template <int BN>
struct HalfTile {
    static constexpr int PITCH = BN + 16, PIECES = BN / 16;
    u8* staging;
    u16* to;
    int stride, rows, outputs; // rows, outputs: that there are from here on

    // `value(i)`: the pair of outputs that begins with accumulator i of the half.
    template <typename Value>
    __device__ __forceinline__ void with(Value value, int lane) const {
        u8* own = staging + (lane >> 2) * PITCH + (lane & 3) * 4;
#pragma unroll
        for (int i = 0; i < BN / 4; i += 2) *(u32*)(own + (i & 2) * 4 * PITCH + i / 4 * 16) = value(i);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < PIECES / 2; i++) {
            const int at = i * 32 + lane, r = at / PIECES, piece = at % PIECES;
            const uint4 v = *(const uint4*)(staging + r * PITCH + piece * 16);
            if (r < rows && piece * 8 < outputs) *(uint4*)(to + (size_t)r * stride + piece * 8) = v;
        }
        __syncwarp();
    }
};

// STAGGER: steps by which the second warpgroup begins later, so that one's results are written while the other multiplies.
template <int BN, int STAGES, int OUT, int STAGGER, bool SPLIT>
__device__ __forceinline__ void tiles(const TensorMap& weight, const TensorMap& x, const TilesArgs& p) {
    constexpr int X_BYTES = 128 * 128, HALF = BN / 2 * 128, STAGE = X_BYTES + 2 * HALF;
    // With SILU_MUL the first half of a tile's outputs is of the gate, the other the same of `up`, n further down.
    constexpr int OWN = OUT == SILU_MUL ? BN / 2 : BN;
    // A warp's 16 rows of half a tile's outputs in bf16, before they are written.
    constexpr int STAGING = 16 * HalfTile<BN>::PITCH, SUM_PITCH = BN + 8;
    static_assert(!SPLIT || OUT != SILU_MUL && 128 * SUM_PITCH * 4 <= STAGES * STAGE, "the sums must fit in the ring");
    extern __shared__ __align__(1024) u8 shared[];
    const u32 ring = shared_address(shared), bars = ring + STAGES * STAGE + 8 * STAGING;
    auto full = [&](int s) { return bars + s * 8; };
    auto empty = [&](int s) { return bars + (STAGES + s) * 8; };

    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warpgroup = threadIdx.x >> 7;
    const int rank = blockIdx.y & 1, total = p.pairs * p.columns;
    const int parts = SPLIT ? gridDim.y / 2 : 1, part = SPLIT ? blockIdx.y / 2 : 0;
    const int begin = p.steps * part / parts, steps = p.steps * (part + 1) / parts - begin;
    if (threadIdx.x == 0) {
        // A warp of the four warpgroups of both blocks each says when it is done.
        for (int s = 0; s < STAGES; s++) barrier_init(full(s), 1), barrier_init(empty(s), 16);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_sync();

    auto locate = [&](int tile, int& row, int& column) {
        const int of_group = p.group * p.columns, first = tile / of_group * p.group, in_group = tile % of_group;
        const int height = min(p.group, p.pairs - first);
        row = (first + in_group % height) * 256 + rank * 128, column = in_group / height;
    };

    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(SPLIT ? 40 : 24));
        if (threadIdx.x == 0) {
            auto weights = [&](int column, int j, int s) {
                const int y = OUT == SILU_MUL ? column * OWN + rank * p.n : column * BN + rank * (BN / 2);
                copy_box_to(3 << 2 * part, ring + s * STAGE + X_BYTES + rank * HALF, &weight, (begin + j) * 64, y, full(s));
            };
            int row, column, done = 0;
            locate(blockIdx.x, row, column);
            // The first steps: weights before the kernel in front has ended.
            const int ahead = min(steps, STAGES);
            for (int j = 0; j < ahead; j++) {
                barrier_expect(full(j), STAGE);
                weights(column, j, j);
            }
            wait_for_inputs();
            for (int j = 0; j < ahead; j++) copy_box(ring + j * STAGE, &x, (begin + j) * 64, row, full(j));
            done = ahead;
            int s = ahead % STAGES, round = ahead / STAGES;
            for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
                locate(tile, row, column);
                for (int j = done; j < steps; j++) {
                    if (round > 0) barrier_wait(empty(s), (round - 1) & 1);
                    barrier_expect(full(s), STAGE);
                    copy_box(ring + s * STAGE, &x, (begin + j) * 64, row, full(s));
                    weights(column, j, s);
                    if (++s == STAGES) s = 0, round++;
                }
                done = 0;
            }
            let_dependents_start();
        }
        __syncwarp();
        if (SPLIT) cluster_sync();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(SPLIT ? 232 : 240));
        const int group = warpgroup - 1, g = lane >> 2, c = lane & 3;
        u8* staging = shared + STAGES * STAGE + (warp - 4) * STAGING;
        float acc[BN / 2];
        float scale[2] = {1.0f, 1.0f};
        int s = 0, phase = 0;
        wait_for_inputs();
        if (STAGGER > 0 && group == 1) threads_sync(1, 256);
        for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
            int first, column;
            locate(tile, first, column);
            first += group * 64 + (warp & 3) * 16;
            int before = 0;
            for (int j = 0; j < steps; j++) {
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
                if (j > 0 && lane < 2) barrier_arrive_at(empty(before), 2 * part + lane);
                if (STAGGER > 0 && group == 0 && j == min(STAGGER, steps) - 1 && tile == blockIdx.x) threads_arrive(1, 256);
                before = s;
                if (++s == STAGES) s = 0, phase ^= 1;
            }
            products_wait<0>();
            if (SPLIT) {
                // To the memory of the ring, which nobody fills any more.
                threads_sync(2, 256);
                float* to = (float*)shared + (group * 64 + (warp & 3) * 16 + g) * SUM_PITCH + 2 * c;
#pragma unroll
                for (int i = 0; i < BN / 2; i += 2) {
                    *(float2*)(to + (i & 2) * 4 * SUM_PITCH + i / 4 * 8) = make_float2(acc[i], acc[i + 1]);
                }
                break;
            }
            if (lane < 2) barrier_arrive_at(empty(before), 2 * part + lane);

            if (p.squares) {
                // Four lanes a row.
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float* of_row = p.squares + (size_t)min(first + g + 8 * h, p.rows - 1) * SQUARES;
                    float sum = 0.0f;
                    for (int i = c; i < p.num_squares; i += 4) sum += of_row[i];
                    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                    scale[h] = rsqrtf(sum / (float)p.k + p.eps);
                }
            }
            auto write = [&](u16* to, int stride, int o) {
                return HalfTile<BN>{staging, to + (size_t)first * stride + o, stride, p.rows - first, p.n - o};
            };
            if (OUT == SILU_MUL) {
                auto gated = [&](int i) {
                    const float factor = scale[i / 2 & 1];
                    const float g0 = acc[i] * factor, g1 = acc[i + 1] * factor;
                    const float u0 = acc[i + BN / 4] * factor, u1 = acc[i + 1 + BN / 4] * factor;
                    const float d0 = one_and_exp(-g0), d1 = one_and_exp(-g1), both = reciprocal(d0 * d1);
                    return pack_bf16(g0 * u0 * (d1 * both), g1 * u1 * (d0 * both));
                };
                write((u16*)p.out, p.stride, column * OWN).with(gated, lane);
            } else if (OUT == STORE) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    auto plain = [&](int i) {
                        const float factor = scale[i / 2 & 1];
                        return pack_bf16(acc[half * BN / 4 + i] * factor, acc[half * BN / 4 + i + 1] * factor);
                    };
                    write((u16*)p.out, p.stride, column * BN + half * (BN / 2)).with(plain, lane);
                }
            } else {
                float squares[2] = {0.0f, 0.0f};
#pragma unroll
                for (int i = 0; i < BN / 2; i += 32) {
                    float2 old[16];
#pragma unroll
                    for (int e = 0; e < 32; e += 2) {
                        const int row = first + g + (e & 2) * 4, o = column * BN + (i + e) / 4 * 8 + 2 * c;
                        old[e / 2] = make_float2(0.0f, 0.0f);
                        if (row < p.rows && o < p.n) {
                            old[e / 2] = *(const float2*)((const float*)p.out + (size_t)row * p.stride + o);
                        }
                    }
#pragma unroll
                    for (int e = 0; e < 32; e += 2) {
                        const int row = first + g + (e & 2) * 4, o = column * BN + (i + e) / 4 * 8 + 2 * c;
                        float& a = acc[i + e];
                        float& b = acc[i + e + 1];
                        a = a * scale[e / 2 & 1] + old[e / 2].x, b = b * scale[e / 2 & 1] + old[e / 2].y;
                        squares[e / 2 & 1] += a * a + b * b;
                        if (row < p.rows && o < p.n) {
                            *(float2*)((float*)p.out + (size_t)row * p.stride + o) = make_float2(a, b);
                        }
                    }
                }
                if (p.copy) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const int from = column * BN + half * (BN / 2);
                        auto normed = [&](int i) {
                            const int o = min(from + i / 4 * 8 + 2 * c, p.n - 2);
                            const u32 gain = *(const u32*)(p.gain + o);
                            return pack_bf16(acc[half * BN / 4 + i] * low_f32(gain), acc[half * BN / 4 + i + 1] * high_f32(gain));
                        };
                        write(p.copy, p.n, from).with(normed, lane);
                    }
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        float sum = squares[h] + __shfl_xor_sync(0xffffffffu, squares[h], 1);
                        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                        const int row = first + g + 8 * h;
                        if (c == 0 && row < p.rows) p.new_squares[(size_t)row * SQUARES + column] = sum;
                    }
                }
            }
        }
        if (SPLIT) {
            cluster_sync();
            int first, column;
            locate(blockIdx.x, first, column);
            // A warp takes a row. Sums are added in the order of k.
#pragma unroll 2
            for (int r = 128 * part / parts + warp - 4; r < 128 * (part + 1) / parts; r += 8) {
                const int row = first + r;
                if (row >= p.rows) break;
                float scale = 1.0f, squares = 0.0f;
                if (p.squares) {
                    float sum = 0.0f;
                    for (int i = lane; i < p.num_squares; i += 32) sum += p.squares[(size_t)row * SQUARES + i];
                    scale = rsqrtf(warp_sum(sum) / (float)p.k + p.eps);
                }
                constexpr int PIECES = (BN + 127) / 128;
                float4 v[PIECES], old[PIECES];
#pragma unroll
                for (int i = 0; i < PIECES; i++) {
                    const int local = i * 128 + lane * 4, o = column * BN + local;
                    v[i] = old[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    if (local >= BN || o >= p.n) continue;
                    if (OUT == ADD) old[i] = *(const float4*)((const float*)p.out + (size_t)row * p.stride + o);
                    const u32 at = ring + (r * SUM_PITCH + local) * 4;
#pragma unroll 4
                    for (int other = 0; other < parts; other++) {
                        const float4 t = load_of_block(at, 2 * other + rank);
                        v[i].x += t.x, v[i].y += t.y, v[i].z += t.z, v[i].w += t.w;
                    }
                }
#pragma unroll
                for (int i = 0; i < PIECES; i++) {
                    const int local = i * 128 + lane * 4, o = column * BN + local;
                    if (local >= BN || o >= p.n) continue;
                    float4 w = v[i];
                    w.x *= scale, w.y *= scale, w.z *= scale, w.w *= scale;
                    const size_t at = (size_t)row * p.stride + o;
                    if (OUT == ADD) {
                        w.x += old[i].x, w.y += old[i].y, w.z += old[i].z, w.w += old[i].w;
                        *(float4*)((float*)p.out + at) = w;
                        squares += w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
                        if (p.copy) {
                            const uint2 gain = *(const uint2*)(p.gain + o);
                            *(uint2*)(p.copy + at) = make_uint2(pack_bf16(w.x * low_f32(gain.x), w.y * high_f32(gain.x)),
                                                                pack_bf16(w.z * low_f32(gain.y), w.w * high_f32(gain.y)));
                        }
                    } else {
                        *(uint2*)((u16*)p.out + at) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
                    }
                }
                if (OUT == ADD && p.copy) {
                    squares = warp_sum(squares);
                    if (lane == 0) p.new_squares[(size_t)row * SQUARES + column] = squares;
                }
            }
        }
    }
    // Nobody leaves while the other copies into its memory or counts on its barriers.
    cluster_sync();
}

#define TILES(BN, STAGES, NAME, OUT, STAGGER, SPLIT)                                                                   \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                               \
        tiles##BN##_##NAME(const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,             \
                           const __grid_constant__ TilesArgs p) {                                                     \
        tiles<BN, STAGES, OUT, STAGGER, SPLIT>(weight, x, p);                                                          \
    }
#else
#define TILES(BN, STAGES, NAME, OUT, STAGGER, SPLIT)                                                                   \
    extern "C" __global__ void tiles##BN##_##NAME(const __grid_constant__ TensorMap, const __grid_constant__ TensorMap, \
                                                  const __grid_constant__ TilesArgs) {}
#endif

TILES(256, 4, store, STORE, 2, false)
TILES(192, 5, store, STORE, 0, false)
TILES(128, 6, store, STORE, 0, false)
TILES(256, 4, add, ADD, 2, false)
TILES(192, 5, add, ADD, 0, false)
TILES(128, 6, add, ADD, 0, false)
TILES(256, 4, silu_mul, SILU_MUL, 2, false)
TILES(224, 4, silu_mul, SILU_MUL, 0, false)
TILES(192, 5, silu_mul, SILU_MUL, 0, false)
// Clusters that share k.
TILES(256, 4, store_split, STORE, 0, true)
TILES(192, 5, store_split, STORE, 0, true)
TILES(128, 6, store_split, STORE, 0, true)
TILES(256, 4, add_split, ADD, 0, true)
TILES(192, 5, add_split, ADD, 0, true)
TILES(128, 6, add_split, ADD, 0, true)
