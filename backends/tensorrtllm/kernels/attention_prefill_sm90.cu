// Attention of the rows of prompts, as attention_prefill.cu, on Hopper's warpgroup products and bulk copies.
//
// Floor: 4 * head_dim operations for each (query head, position before it); keys and values of the context once.
//
// A block takes 128 rows of one query head. One warp copies tiles of 128 positions (four KV blocks) of keys and of
// values into shared memory, two tiles ahead; two warpgroups take 64 rows each. A warpgroup starts the scores of tile
// j + 1 and the output of tile j together, and computes the softmax of j + 1 while the output is in the tensor cores;
// the two warpgroups take turns in starting, so that one's softmax meets the other's products.
//
// Shared memory, every tile in slabs of 64 elements (128 bytes a row, exchanged in 16-byte pieces by the row):
//   queries [HD / 64][128 rows], keys [2][HD / 64][128], values [2][HD / 64][128]

struct PrefillArgs90 {
    const u16* qkv;          // [rows][q + 2 * kv heads][head_dim]
    u16* out;                // [rows][q heads][head_dim]
    const int4* tiles;       // (first row, rows, slot, position of the first row)
    const int* tables;       // [slot][table_width]
    // Of the KV memory as a matrix of rows of head_dim: where this layer's keys and values begin, and how many there are.
    u32 key_rows, value_rows, all_rows;
    int table_width, q_heads, kv_heads, window;
    float scale;             // log2(e) / sqrt(head_dim)
};

constexpr int Q_ROWS = 128, KV_TILE = 128, KV_PAGE = 32, KV_STAGES = 2, SLAB = KV_TILE * 128;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// d (64 x 128) = a * b^T (+ d if `add`), both in shared memory, depth 16.
__device__ __forceinline__ void scores_128(float (&d)[64], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48)
                 : "l"(a), "l"(b), "r"(add));
}
// d (64 x 128 or 64 x 64) += a * b, `a` in registers, `b` with its outputs contiguous, depth 16.
__device__ __forceinline__ void add_product(float (&d)[64], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}
__device__ __forceinline__ void add_product(float (&d)[32], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                 : F16(d, 0), F16(d, 16)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

template <int HD>
__device__ __forceinline__ void attend_prefill_90(const TensorMap& map, const PrefillArgs90& p) {
    constexpr int SLABS = HD / 64, TILE_BYTES = SLABS * SLAB, OUT_TILES = HD / 8, SCORE_TILES = KV_TILE / 8;
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ __align__(8) u64 barriers[4 * KV_STAGES];
    const u32 queries = shared_address(shared), keys = queries + TILE_BYTES, values = keys + KV_STAGES * TILE_BYTES;
    const u32 bars = shared_address(barriers);
    auto keys_full = [&](int s) { return bars + s * 8; };
    auto keys_free = [&](int s) { return bars + (KV_STAGES + s) * 8; };
    auto values_full = [&](int s) { return bars + (2 * KV_STAGES + s) * 8; };
    auto values_free = [&](int s) { return bars + (3 * KV_STAGES + s) * 8; };

    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warpgroup = threadIdx.x >> 7;
    if (threadIdx.x == 0) {
        for (int s = 0; s < KV_STAGES; s++) {
            barrier_init(keys_full(s), 1), barrier_init(values_full(s), 1);
            // A warp of the two warpgroups each says when it is done.
            barrier_init(keys_free(s), 8), barrier_init(values_free(s), 8);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_inputs();
    let_dependents_start();
    __syncthreads();

    const int head = blockIdx.x, kv = head / (p.q_heads / p.kv_heads);
    const int4 tile = p.tiles[blockIdx.y];
    const int first_row = tile.x, rows = tile.y, first_position = tile.w;
    const int end = first_position + rows;
    const int begin = p.window > 0 ? max(0, first_position - p.window + 1) / KV_TILE * KV_TILE : 0;
    const int count = (end - begin + KV_TILE - 1) / KV_TILE;

    if (warpgroup == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (warp != 0) return;
        const int* table = p.tables + (size_t)tile.z * p.table_width;
        // Lane l < 4 copies page l of a tile. A page behind the end lies outside of the memory: it becomes zeros.
        auto page_row = [&](int at) {
            const int position = at + lane * KV_PAGE;
            return lane < 4 && position < end ? (table[position / KV_PAGE] * p.kv_heads + kv) * KV_PAGE : -1;
        };
        int row = page_row(begin);
        for (int j = 0; j < count; j++) {
            const int s = j % KV_STAGES, round = j / KV_STAGES;
            const int next = page_row(begin + (j + 1) * KV_TILE);
            auto copy = [&](u32 full, u32 free, u32 to, u32 base) {
                if (round > 0) barrier_wait(free, (round - 1) & 1);
                if (lane == 0) barrier_expect(full, TILE_BYTES);
                __syncwarp();
                if (lane < 4) {
                    const int y = row < 0 ? (int)p.all_rows : (int)(base + (u32)row);
#pragma unroll
                    for (int slab = 0; slab < SLABS; slab++) {
                        copy_box(to + slab * SLAB + lane * KV_PAGE * 128, &map, slab * 64, y, full);
                    }
                }
                __syncwarp();
            };
            copy(keys_full(s), keys_free(s), keys + s * TILE_BYTES, p.key_rows);
            copy(values_full(s), values_free(s), values + s * TILE_BYTES, p.value_rows);
            row = next;
        }
        return;
    }

    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    const int group = warpgroup - 1, thread = threadIdx.x & 127, g = lane >> 2, c = lane & 3;
    const int row_heads = p.q_heads + 2 * p.kv_heads;
    for (int i = thread; i < 64 * HD / 8; i += 128) {
        const int r = group * 64 + i / (HD / 8), chunk = i % (HD / 8);
        uint4 v = make_uint4(0, 0, 0, 0);
        if (r < rows) v = *(const uint4*)(p.qkv + ((size_t)(first_row + r) * row_heads + head) * HD + chunk * 8);
        const u32 to = queries + chunk / 8 * SLAB + r * 128 + ((chunk % 8 ^ (r & 7)) << 4);
        asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w));
    }
    shared_fence();
    // Barriers 1, 2: a warpgroup by itself; 3, 4: its turn; 5: both.
    threads_sync(1 + group, 128);
    if (group == 1) threads_arrive(3, 256);

    const int r0 = (warp & 3) * 16 + g + group * 64;
    const int lowest = first_position + (warp & 3) * 16 + group * 64;
    float acc[HD / 2];
    float s[64];
    u32 prob[32];
    float top[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f}, factor[2];
#pragma unroll
    for (int i = 0; i < HD / 2; i++) acc[i] = 0.0f;

    auto start_scores = [&](int stage) {
        const u32 q = queries + group * 64 * 128, k = keys + stage * TILE_BYTES;
#pragma unroll
        for (int step = 0; step < HD / 16; step++) {
            const u32 offset = step / 4 * SLAB + step % 4 * 32;
            scores_128(s, matrix(q + offset, 16, 1024), matrix(k + offset, 16, 1024), step > 0);
        }
        products_commit();
    };
    auto start_output = [&](int stage) {
        const u32 v = values + stage * TILE_BYTES;
#pragma unroll
        for (int step = 0; step < KV_TILE / 16; step++) {
            add_product(acc, prob[4 * step], prob[4 * step + 1], prob[4 * step + 2], prob[4 * step + 3],
                        matrix(v + step * 2048, SLAB, 1024));
        }
        products_commit();
    };
    auto release = [&](u32 bar) {
        __syncwarp();
        if (lane == 0) barrier_arrive(bar);
    };
    auto softmax = [&](int at) {
        const bool whole = at + KV_TILE <= lowest + 1 && (p.window <= 0 || at > lowest + 15 - p.window);
        if (!whole) {
            const int own = first_position + r0;
#pragma unroll
            for (int i = 0; i < 64; i++) {
                const int key = at + i / 4 * 8 + 2 * c + (i & 1), mine = own + (i & 2) * 4;
                if (key > mine || (p.window > 0 && key <= mine - p.window)) s[i] = -INF;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float m = top[h];
#pragma unroll
            for (int n = 0; n < SCORE_TILES; n++) m = fmaxf(m, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
            const float zero = m == -INF ? 0.0f : m * p.scale;
            factor[h] = exp2_fast(top[h] * p.scale - zero);
            top[h] = m;
            float t = 0.0f;
#pragma unroll
            for (int n = 0; n < SCORE_TILES; n++) {
                const float a = exp2_fast(fmaf(s[4 * n + 2 * h], p.scale, -zero));
                const float b = exp2_fast(fmaf(s[4 * n + 2 * h + 1], p.scale, -zero));
                s[4 * n + 2 * h] = a, s[4 * n + 2 * h + 1] = b;
                t += a + b;
            }
            sum[h] = sum[h] * factor[h] + t;
        }
    };
    auto pack = [&]() {
#pragma unroll
        for (int k = 0; k < 8; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) prob[4 * k + i] = pack_bf16(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
        }
    };

    barrier_wait(keys_full(0), 0);
    threads_sync(3 + group, 256);
    products_fence();
    start_scores(0);
    threads_arrive(3 + (group ^ 1), 256);
    products_wait<0>();
    release(keys_free(0));
    softmax(begin);
    pack();
    for (int j = 1; j < count; j++) {
        const int stage = j % KV_STAGES, before = (j - 1) % KV_STAGES;
        barrier_wait(keys_full(stage), j / KV_STAGES & 1);
        threads_sync(3 + group, 256);
        products_fence();
        start_scores(stage);
        barrier_wait(values_full(before), (j - 1) / KV_STAGES & 1);
        start_output(before);
        threads_arrive(3 + (group ^ 1), 256);
        products_wait<1>();
        release(keys_free(stage));
        softmax(begin + j * KV_TILE);
        products_wait<0>();
        release(values_free(before));
#pragma unroll
        for (int n = 0; n < OUT_TILES; n++) {
            acc[4 * n] *= factor[0], acc[4 * n + 1] *= factor[0], acc[4 * n + 2] *= factor[1], acc[4 * n + 3] *= factor[1];
        }
        pack();
    }
    const int last = (count - 1) % KV_STAGES;
    barrier_wait(values_full(last), (count - 1) / KV_STAGES & 1);
    // What lies behind the end in its block may be anything: zero times it must be zero.
    const int valid = end - begin - (count - 1) * KV_TILE;
    if (valid % KV_PAGE != 0) {
        for (int i = threadIdx.x - 128; i < (KV_TILE - valid) * HD / 8; i += 256) {
            const int r = valid + i / (HD / 8), chunk = i % (HD / 8);
            const u32 to = values + last * TILE_BYTES + chunk / 8 * SLAB + r * 128 + (chunk % 8 << 4);
            asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(to), "r"(0));
        }
        shared_fence();
        threads_sync(5, 256);
    }
    products_fence();
    start_output(last);
    products_wait<0>();

#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
        sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
        const int r = r0 + 8 * h;
        if (r >= rows) continue;
        const float inverse = 1.0f / sum[h];
        u16* to = p.out + ((size_t)(first_row + r) * p.q_heads + head) * HD;
#pragma unroll
        for (int n = 0; n < OUT_TILES; n++) {
            *(u32*)(to + n * 8 + 2 * c) = pack_bf16(acc[4 * n + 2 * h] * inverse, acc[4 * n + 2 * h + 1] * inverse);
        }
    }
}

#define PREFILL90(HD)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                              \
        attention_prefill_sm90_##HD(const __grid_constant__ TensorMap map, const PrefillArgs90 p) {                   \
        attend_prefill_90<HD>(map, p);                                                                                \
    }
#else
#define PREFILL90(HD)                                                                                                 \
    extern "C" __global__ void attention_prefill_sm90_##HD(const __grid_constant__ TensorMap, const PrefillArgs90) {}
#endif

PREFILL90(64)
PREFILL90(128)
