// Attention of the rows of prompts over paged keys and values, causal, with an optional sliding window.
//
// Floor: 4 * head_dim operations for each (query head, position before it); keys and values of the context once.
//
// A block takes 128 rows of one query head, a warp 16 of them, and walks over the context in tiles of 64 positions that
// are copied to shared memory one tile ahead. Softmax is online, in base 2.

constexpr int KV_ROWS = 64;
constexpr int PRE_WARPS = 8;

struct PrefillArgs {
    const u16* qkv;          // [rows][q + 2 * kv heads][head_dim]
    const u16* keys;         // [block][kv head][block_tokens][head_dim]
    const u16* values;
    u16* out;                // [rows][q heads][head_dim]
    const int4* tiles;       // (first row, rows, slot, position of the first row)
    const int* tables;       // [slot][table_width]
    int table_width, block_tokens, q_heads, kv_heads, window;
    float scale;             // log2(e) / sqrt(head_dim)
};

__device__ __forceinline__ void copy_async(u32 to, const void* from, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}
__device__ __forceinline__ uint4 load_shared(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}
__device__ __forceinline__ uint4 load_matrices_transposed(u32 at) {
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}

template <int HD>
struct Layout {
    static constexpr int CHUNKS = HD / 8;
    // Bytes of a position, padded so that the exchange of chunks stays inside.
    static constexpr int STRIDE = (HD + 63) / 64 * 128;
    static constexpr int TILE_BYTES = KV_ROWS * STRIDE;
    static __device__ __forceinline__ u32 key(int row, int chunk) { return row * STRIDE + ((chunk ^ (row & 1) << 2) << 4); }
    static __device__ __forceinline__ u32 value(int row, int chunk) { return row * STRIDE + ((chunk ^ (row & 7)) << 4); }
};

template <int HD>
__device__ __forceinline__ void attend_prefill(const PrefillArgs& p) {
    using L = Layout<HD>;
    constexpr int KSTEPS = (HD + 31) / 32, OUT_TILES = HD / 8, SCORE_TILES = KV_ROWS / 8;
    extern __shared__ __align__(128) u8 shared[];
    wait_for_inputs();
    let_dependents_start();

    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const int head = blockIdx.x, kv = head / (p.q_heads / p.kv_heads);
    const int4 tile = p.tiles[blockIdx.y];
    const int first_row = tile.x, rows = tile.y, first_position = tile.w;
    const int* table = p.tables + (size_t)tile.z * p.table_width;
    const int row_heads = p.q_heads + 2 * p.kv_heads;
    const size_t head_stride = (size_t)p.block_tokens * HD;
    const int end = first_position + rows;
    const int begin = p.window > 0 ? max(0, first_position - p.window + 1) / KV_ROWS * KV_ROWS : 0;
    const u32 base = shared_address(shared);

    auto copy_tile = [&](int at, int buffer) {
        const u32 k_to = base + buffer * 2 * L::TILE_BYTES, v_to = k_to + L::TILE_BYTES;
        for (int i = threadIdx.x; i < KV_ROWS * L::CHUNKS; i += PRE_WARPS * 32) {
            const int r = i / L::CHUNKS, chunk = i % L::CHUNKS, position = at + r;
            const bool there = position < end;
            const int safe = there ? position : at;
            const size_t from = ((size_t)table[safe / p.block_tokens] * p.kv_heads + kv) * head_stride +
                                (size_t)(safe % p.block_tokens) * HD + chunk * 8;
            copy_async(k_to + L::key(r, chunk), p.keys + from, there);
            copy_async(v_to + L::value(r, chunk), p.values + from, there);
        }
    };
    copy_tile(begin, 0);
    commit_copies();

    // Rows of this lane: g and g + 8 of the warp's 16.
    const int r0 = warp * 16 + g, r1 = r0 + 8;
    uint4 query_a[KSTEPS], query_b[KSTEPS];
#pragma unroll
    for (int j = 0; j < KSTEPS; j++) {
        const int d = j * 32 + c * 8;
        const u16* from = p.qkv + ((size_t)first_row * row_heads + head) * HD + d;
        query_a[j] = query_b[j] = make_uint4(0, 0, 0, 0);
        if (r0 < rows && d < HD) query_a[j] = *(const uint4*)(from + (size_t)r0 * row_heads * HD);
        if (r1 < rows && d < HD) query_b[j] = *(const uint4*)(from + (size_t)r1 * row_heads * HD);
    }

    float acc[OUT_TILES][4] = {};
    float top[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f};
    int buffer = 0;
    for (int at = begin; at < end; at += KV_ROWS, buffer ^= 1) {
        if (at + KV_ROWS < end) copy_tile(at + KV_ROWS, buffer ^ 1);
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        const u32 k_at = base + buffer * 2 * L::TILE_BYTES, v_at = k_at + L::TILE_BYTES;

        float s[SCORE_TILES][4] = {};
#pragma unroll
        for (int j = 0; j < KSTEPS; j++) {
#pragma unroll
            for (int n = 0; n < SCORE_TILES; n++) {
                uint4 b = make_uint4(0, 0, 0, 0);
                if (j * 4 + c < L::CHUNKS) b = load_shared(k_at + L::key(n * 8 + g, j * 4 + c));
                mma_16816(s[n], query_a[j].x, query_b[j].x, query_a[j].y, query_b[j].y, b.x, b.y);
                mma_16816(s[n], query_a[j].z, query_b[j].z, query_a[j].w, query_b[j].w, b.z, b.w);
            }
        }
        const int p0 = first_position + r0, p1 = first_position + r1;
        const bool whole = at + KV_ROWS <= first_position + warp * 16 + 1 &&
                           (p.window <= 0 || at > first_position + warp * 16 + 15 - p.window);
#pragma unroll
        for (int n = 0; n < SCORE_TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = at + n * 8 + 2 * c + (i & 1), own = i < 2 ? p0 : p1;
                const bool seen = whole || (key <= own && (p.window <= 0 || key > own - p.window));
                s[n][i] = seen ? s[n][i] * p.scale : -INF;
            }
        }
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = top[i];
#pragma unroll
            for (int n = 0; n < SCORE_TILES; n++) m = fmaxf(m, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
            const float zero = m == -INF ? 0.0f : m;
            factor[i] = exp2_fast(top[i] - zero);
            top[i] = m;
            sum[i] *= factor[i];
#pragma unroll
            for (int n = 0; n < SCORE_TILES; n++) {
                s[n][2 * i] = exp2_fast(s[n][2 * i] - zero), s[n][2 * i + 1] = exp2_fast(s[n][2 * i + 1] - zero);
                sum[i] += s[n][2 * i] + s[n][2 * i + 1];
            }
        }
#pragma unroll
        for (int n = 0; n < OUT_TILES; n++) {
            acc[n][0] *= factor[0], acc[n][1] *= factor[0], acc[n][2] *= factor[1], acc[n][3] *= factor[1];
        }
#pragma unroll
        for (int k = 0; k < KV_ROWS / 16; k++) {
            const u32 a0 = pack_bf16(s[2 * k][0], s[2 * k][1]), a1 = pack_bf16(s[2 * k][2], s[2 * k][3]);
            const u32 a2 = pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), a3 = pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3]);
#pragma unroll
            for (int n = 0; n < OUT_TILES; n += 2) {
                const uint4 b = load_matrices_transposed(v_at + L::value(k * 16 + (lane & 15), n + (lane >> 4)));
                mma_16816(acc[n], a0, a1, a2, a3, b.x, b.y);
                mma_16816(acc[n + 1], a0, a1, a2, a3, b.z, b.w);
            }
        }
        // The buffer is filled again in the next turn.
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
        const int r = i ? r1 : r0;
        if (r >= rows) continue;
        const float inverse = 1.0f / sum[i];
        u16* to = p.out + ((size_t)(first_row + r) * p.q_heads + head) * HD;
#pragma unroll
        for (int n = 0; n < OUT_TILES; n++) {
            *(u32*)(to + n * 8 + 2 * c) = pack_bf16(acc[n][2 * i] * inverse, acc[n][2 * i + 1] * inverse);
        }
    }
}

#define PREFILL(HD)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(PRE_WARPS * 32, 1) attention_prefill_##HD(const PrefillArgs p) {     \
        attend_prefill<HD>(p);                                                                                        \
    }

PREFILL(64)
PREFILL(80)
PREFILL(96)
PREFILL(128)
PREFILL(256)
