// Attention of one new token a sequence over its paged keys and values.
//
// Floor: keys and values of the context once, 4 * kv_heads * head_dim bytes a position, layer and sequence.
//
// A block takes one sequence, one kv head (or 8 of its query heads) and a part of the context; its warps take tiles of
// 16 positions in turn. Scores are computed transposed: keys are operand A (16 positions), the queries of the group
// operand B (8 columns, unused ones zero), and the output is V^T P^T, so that all loads are 16 bytes from memory
// straight to registers. As in linear.cu, the free choice of the inner index makes 8 consecutive elements of a key
// feed two products; for V^T, the free choice of the output row makes 8 consecutive elements of a value feed four.
//
// Parts of a sequence meet in memory: the last block to finish adds them up in their order.

constexpr int ATT_WARPS = 4;
constexpr int TILE = 16;

struct DecodeArgs {
    const u16* qkv;          // [rows][q + 2 * kv heads][head_dim]
    const u16* keys;         // [block][kv head][block_tokens][head_dim]
    const u16* values;
    u16* out;                // [rows][q heads][head_dim]
    const int* row_slot;
    const int* row_position;
    const int* tables;       // [slot][table_width]
    float* parts;            // [row][kv head and group][part][8][head_dim + 2]
    u32* arrived;            // [row][kv head and group], zero between launches
    int table_width, block_tokens, q_heads, kv_heads, window;
    float scale;             // log2(e) / sqrt(head_dim)
};

__device__ __forceinline__ u32 low_halves(u32 a, u32 b) { return __byte_perm(a, b, 0x5410); }
__device__ __forceinline__ u32 high_halves(u32 a, u32 b) { return __byte_perm(a, b, 0x7632); }

// What a block takes: one sequence, one kv head (or 8 of its query heads), a part of the context in whole tiles counted
// from the window's start rounded down, so that a tile lies in one KV block.
struct DecodeShare {
    int row, part, num_parts, kv, first_head, heads, length, start, from, to;
};

__device__ __forceinline__ DecodeShare share_of_block(const DecodeArgs& p) {
    DecodeShare s;
    s.row = blockIdx.z, s.part = blockIdx.y;
    const int group = p.q_heads / p.kv_heads, subgroups = (group + 7) / 8;
    s.kv = blockIdx.x / subgroups, s.first_head = s.kv * group + blockIdx.x % subgroups * 8;
    s.heads = min(8, (s.kv + 1) * group - s.first_head);
    s.length = p.row_position[s.row] + 1;
    s.start = p.window > 0 ? max(0, s.length - p.window) : 0;
    const int first_tile = s.start / TILE, tiles = (s.length + TILE - 1) / TILE - first_tile;
    const int wanted = min((int)gridDim.y, (tiles + ATT_WARPS - 1) / ATT_WARPS);
    const int per_part = (tiles + wanted - 1) / wanted;
    s.num_parts = (tiles + per_part - 1) / per_part;
    s.from = first_tile + s.part * per_part, s.to = min(first_tile + tiles, s.from + per_part);
    return s;
}

// Scores of a tile to probabilities, with what was summed so far scaled by `factor`. Operand B of the output.
__device__ __forceinline__ uint2 softmax_tile(const DecodeArgs& p, const DecodeShare& b, int first, float (&s)[4],
                                              float (&top)[2], float (&sum)[2], float (&factor)[2]) {
    const int position = first + ((threadIdx.x & 31) >> 2);
    const bool in_a = position >= b.start && position < b.length;
    const bool in_b = position + 8 >= b.start && position + 8 < b.length;
    s[0] = in_a ? s[0] * p.scale : -INF, s[1] = in_a ? s[1] * p.scale : -INF;
    s[2] = in_b ? s[2] * p.scale : -INF, s[3] = in_b ? s[3] * p.scale : -INF;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float m = fmaxf(s[i], s[i + 2]);
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 4));
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 8));
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 16));
        m = fmaxf(m, top[i]);
        // A tile before the window's start has no score at all.
        const float base = m == -INF ? 0.0f : m;
        factor[i] = exp2_fast(top[i] - base);
        top[i] = m;
        s[i] = exp2_fast(s[i] - base), s[i + 2] = exp2_fast(s[i + 2] - base);
        sum[i] = sum[i] * factor[i] + s[i] + s[i + 2];
    }
    return make_uint2(transpose_8x8(pack_bf16(s[0], s[1])), transpose_8x8(pack_bf16(s[2], s[3])));
}

// Adds a tile's values, weighted, to the output.
template <int CHUNKS>
__device__ __forceinline__ void add_values(float (&acc)[CHUNKS][4][4], const uint4 (&value)[CHUNKS][4],
                                           const float (&factor)[2], uint2 b) {
#pragma unroll
    for (int h = 0; h < CHUNKS; h++) {
        const u32* v0 = (const u32*)&value[h][0];
        const u32* v1 = (const u32*)&value[h][1];
        const u32* v2 = (const u32*)&value[h][2];
        const u32* v3 = (const u32*)&value[h][3];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            acc[h][j][0] *= factor[0], acc[h][j][1] *= factor[1];
            acc[h][j][2] *= factor[0], acc[h][j][3] *= factor[1];
            mma_16816(acc[h][j], low_halves(v0[j], v1[j]), high_halves(v0[j], v1[j]), low_halves(v2[j], v3[j]),
                      high_halves(v2[j], v3[j]), b.x, b.y);
        }
    }
}

// The warps' parts meet in `outs` (`pitch` floats a warp), then the blocks' in memory.
template <int HD>
__device__ __forceinline__ void meet(const DecodeArgs& p, const DecodeShare& b, float* outs, int pitch,
                                     const float (&acc)[(HD + 63) / 64][4][4], const float (&top)[2], float (&sum)[2]) {
    __shared__ float maxima[ATT_WARPS][8], sums[ATT_WARPS][8];
    __shared__ u32 rank;
    __shared__ float factors[8][32], totals[8];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const int row = b.row, first_head = b.first_head, heads = b.heads, part = b.part, num_parts = b.num_parts;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 4);
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 8);
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 16);
        if (g == 0) maxima[warp][2 * c + i] = top[i], sums[warp][2 * c + i] = sum[i];
    }
#pragma unroll
    for (int h = 0; h < (HD + 63) / 64; h++) {
        const int d = h * 64 + g * 8;
        if (d < HD) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                *(float2*)(outs + warp * pitch + 2 * c * HD + d + 2 * j) = make_float2(acc[h][j][0], acc[h][j][2]);
                *(float2*)(outs + warp * pitch + (2 * c + 1) * HD + d + 2 * j) = make_float2(acc[h][j][1], acc[h][j][3]);
            }
        }
    }
    __syncthreads();

    const int place = row * gridDim.x + blockIdx.x;
    float* parts = p.parts + (size_t)place * gridDim.y * 8 * (HD + 2);
    for (int i = threadIdx.x; i < heads * HD; i += ATT_WARPS * 32) {
        const int head = i / HD, d = i % HD;
        float m = -INF, l = 0.0f, o = 0.0f;
#pragma unroll
        for (int w = 0; w < ATT_WARPS; w++) m = fmaxf(m, maxima[w][head]);
        const float base = m == -INF ? 0.0f : m;
#pragma unroll
        for (int w = 0; w < ATT_WARPS; w++) {
            const float f = exp2_fast(maxima[w][head] - base);
            l += f * sums[w][head];
            o += f * outs[w * pitch + head * HD + d];
        }
        if (num_parts == 1) {
            p.out[((size_t)row * p.q_heads + first_head) * HD + i] = round_bf16(o / l);
        } else {
            float* to = parts + ((size_t)part * 8 + head) * (HD + 2);
            to[d] = o;
            if (d == 0) to[HD] = m, to[HD + 1] = l;
        }
    }
    if (num_parts == 1) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) rank = atomicAdd(p.arrived + place, 1u);
    __syncthreads();
    if (rank != num_parts - 1) return;
    __threadfence();
    if (threadIdx.x == 0) p.arrived[place] = 0;
    constexpr size_t STRIDE = (size_t)8 * (HD + 2);
    // A warp takes the weights of a head's parts, a part a lane; there are at most 32.
    for (int head = warp; head < heads; head += ATT_WARPS) {
        const float* sums_of = parts + (size_t)lane * STRIDE + head * (HD + 2) + HD;
        float m = -INF, l = 0.0f;
        if (lane < num_parts) m = __ldcg(sums_of), l = __ldcg(sums_of + 1);
        const float top_of = warp_max(m), f = exp2_fast(m - (top_of == -INF ? 0.0f : top_of));
        const float total = warp_sum(f * l);
        factors[head][lane] = f;
        if (lane == 0) totals[head] = total;
    }
    __syncthreads();
    for (int i = threadIdx.x * 2; i < heads * HD; i += ATT_WARPS * 64) {
        const int head = i / HD, d = i % HD;
        const float* from_part = parts + head * (HD + 2) + d;
        float o0 = 0.0f, o1 = 0.0f;
#pragma unroll 8
        for (int k = 0; k < num_parts; k++) {
            const float2 v = __ldcg((const float2*)(from_part + k * STRIDE));
            o0 += factors[head][k] * v.x, o1 += factors[head][k] * v.y;
        }
        *(u32*)(p.out + ((size_t)row * p.q_heads + first_head) * HD + i) = pack_bf16(o0 / totals[head], o1 / totals[head]);
    }
}

template <int HD>
__device__ __forceinline__ void attend_decode(const DecodeArgs& p) {
    constexpr int KSTEPS = (HD + 31) / 32, CHUNKS = (HD + 63) / 64;
    __shared__ float outs[ATT_WARPS][8][HD];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const DecodeShare b = share_of_block(p);
    if (b.part >= b.num_parts) return;
    const int row = b.row, kv = b.kv, heads = b.heads, length = b.length, to = b.to;

    const int* table = p.tables + (size_t)p.row_slot[row] * p.table_width;
    const int row_heads = p.q_heads + 2 * p.kv_heads;
    const u16* q = p.qkv + ((size_t)row * row_heads + b.first_head) * HD;

    float acc[CHUNKS][4][4] = {};
    float top[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f};
    const size_t head_stride = (size_t)p.block_tokens * HD;

    uint4 key_a[KSTEPS], key_b[KSTEPS];
    auto tile_at = [&](int tile) {
        const int position = tile * TILE;
        return ((size_t)table[position / p.block_tokens] * p.kv_heads + kv) * head_stride +
               (size_t)(position % p.block_tokens) * HD;
    };
    auto load_keys = [&](size_t at) {
#pragma unroll
        for (int j = 0; j < KSTEPS; j++) {
            const int d = j * 32 + c * 8;
            if (d < HD) {
                key_a[j] = load_stream(p.keys + at + g * HD + d);
                key_b[j] = load_stream(p.keys + at + (g + 8) * HD + d);
            } else {
                key_a[j] = key_b[j] = make_uint4(0, 0, 0, 0);
            }
        }
    };
    // Rows, tables and all positions but the last were written long before the kernel in front.
    int tile = b.from + warp;
    size_t at = tile < to ? tile_at(tile) : 0;
    const bool old = (tile + 1) * TILE < length;
    if (tile < to && old) load_keys(at);
    wait_for_inputs();
    let_dependents_start();
    if (tile < to && !old) load_keys(at);
    uint4 query[KSTEPS];
#pragma unroll
    for (int j = 0; j < KSTEPS; j++) {
        const int d = j * 32 + c * 8;
        query[j] = make_uint4(0, 0, 0, 0);
        if (g < heads && d < HD) query[j] = *(const uint4*)(q + g * HD + d);
    }
    while (tile < to) {
        uint4 value[CHUNKS][4];
#pragma unroll
        for (int h = 0; h < CHUNKS; h++) {
            const int d = h * 64 + g * 8;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int position = 2 * c + (i & 1) + (i >> 1) * 8;
                value[h][i] = make_uint4(0, 0, 0, 0);
                // What lies behind the sequence's end was never written: zero times anything must stay zero.
                if (d < HD && tile * TILE + position < length) {
                    value[h][i] = load_stream(p.values + at + position * HD + d);
                }
            }
        }
        float s[4] = {};
#pragma unroll
        for (int j = 0; j < KSTEPS; j++) {
            mma_16816(s, key_a[j].x, key_b[j].x, key_a[j].y, key_b[j].y, query[j].x, query[j].y);
            mma_16816(s, key_a[j].z, key_b[j].z, key_a[j].w, key_b[j].w, query[j].z, query[j].w);
        }
        const int first = tile * TILE;
        tile += ATT_WARPS;
        if (tile < to) load_keys(at = tile_at(tile));
        float factor[2];
        const uint2 probabilities = softmax_tile(p, b, first, s, top, sum, factor);
        add_values(acc, value, factor, probabilities);
    }
    meet<HD>(p, b, &outs[0][0][0], 8 * HD, acc, top, sum);
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void copy_bytes(u32 to, const void* from, u32 bytes, u32 bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ uint4 load_shared(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}

// The same with tiles that the copy engine brings into shared memory, DEPTH of them on their way for each warp: what is
// on its way is then no matter of registers, and two blocks a multiprocessor are enough.
template <int HD, int DEPTH>
__device__ __forceinline__ void attend_ring(const DecodeArgs& p) {
    constexpr int KSTEPS = (HD + 31) / 32, CHUNKS = (HD + 63) / 64, BYTES = TILE * HD * 2;
    static_assert(DEPTH * 2 * BYTES >= 8 * HD * 4 && DEPTH <= 32, "a warp's output must fit in its ring");
    extern __shared__ __align__(128) u8 shared[];
    __shared__ __align__(8) u64 barriers[ATT_WARPS][DEPTH];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, c = lane & 3;
    const DecodeShare b = share_of_block(p);
    if (b.part >= b.num_parts) return;
    const u32 ring = shared_address(shared) + warp * DEPTH * 2 * BYTES, bars = shared_address(barriers[warp]);
    if (lane < DEPTH) barrier_init(bars + lane * 8, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncwarp();

    // Every warp has tiles of its own: number i is from + warp + 4 i. Lane l knows where number 32 r + l lies.
    const int* table = p.tables + (size_t)p.row_slot[b.row] * p.table_width;
    const int own = b.from + warp, count = own < b.to ? (b.to - own + ATT_WARPS - 1) / ATT_WARPS : 0;
    const size_t head_stride = (size_t)p.block_tokens * HD;
    auto place = [&](int i) {
        const int position = (own + i * ATT_WARPS) * TILE;
        if (i >= count) return (size_t)0;
        return ((size_t)table[position / p.block_tokens] * p.kv_heads + b.kv) * head_stride +
               (size_t)(position % p.block_tokens) * HD;
    };
    size_t places = place(lane);
    auto bring = [&](int i) {
        if (i > 0 && i % 32 == 0) places = place(i + lane);
        const size_t at = __shfl_sync(0xffffffffu, places, i % 32);
        if (lane == 0) {
            const u32 to = ring + i % DEPTH * 2 * BYTES, bar = bars + i % DEPTH * 8;
            barrier_expect(bar, 2 * BYTES);
            copy_bytes(to, p.keys + at, BYTES, bar);
            copy_bytes(to + BYTES, p.values + at, BYTES, bar);
        }
        __syncwarp();
    };
    // Rows, tables and all positions but the last were written long before the kernel in front.
    int brought = 0;
    while (brought < min(count, DEPTH) && (own + brought * ATT_WARPS + 1) * TILE < b.length) bring(brought++);
    wait_for_inputs();
    let_dependents_start();
    while (brought < min(count, DEPTH)) bring(brought++);

    const int row_heads = p.q_heads + 2 * p.kv_heads;
    const u16* q = p.qkv + ((size_t)b.row * row_heads + b.first_head) * HD;
    uint4 query[KSTEPS];
#pragma unroll
    for (int j = 0; j < KSTEPS; j++) {
        const int d = j * 32 + c * 8;
        query[j] = make_uint4(0, 0, 0, 0);
        if (g < b.heads && d < HD) query[j] = *(const uint4*)(q + g * HD + d);
    }
    float acc[CHUNKS][4][4] = {};
    float top[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f};
    for (int i = 0; i < count; i++) {
        const u32 keys = ring + i % DEPTH * 2 * BYTES, values = keys + BYTES;
        const int first = (own + i * ATT_WARPS) * TILE;
        barrier_wait(bars + i % DEPTH * 8, i / DEPTH & 1);
        float s[4] = {};
#pragma unroll
        for (int j = 0; j < KSTEPS; j++) {
            const int d = j * 32 + c * 8;
            uint4 a = make_uint4(0, 0, 0, 0), e = a;
            if (d < HD) a = load_shared(keys + (g * HD + d) * 2), e = load_shared(keys + ((g + 8) * HD + d) * 2);
            mma_16816(s, a.x, e.x, a.y, e.y, query[j].x, query[j].y);
            mma_16816(s, a.z, e.z, a.w, e.w, query[j].z, query[j].w);
        }
        uint4 value[CHUNKS][4];
#pragma unroll
        for (int h = 0; h < CHUNKS; h++) {
            const int d = h * 64 + g * 8;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int position = 2 * c + (e & 1) + (e >> 1) * 8;
                value[h][e] = make_uint4(0, 0, 0, 0);
                // What lies behind the sequence's end was never written: zero times anything must stay zero.
                if (d < HD && first + position < b.length) value[h][e] = load_shared(values + (position * HD + d) * 2);
            }
        }
        float factor[2];
        const uint2 probabilities = softmax_tile(p, b, first, s, top, sum, factor);
        // All lanes have what they need of the tile.
        __syncwarp();
        if (i + DEPTH < count) bring(i + DEPTH);
        add_values(acc, value, factor, probabilities);
    }
    meet<HD>(p, b, (float*)shared, DEPTH * 2 * BYTES / 4, acc, top, sum);
}
#endif

#define DECODE(HD)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(ATT_WARPS * 32, HD > 128 ? 2 : HD > 64 ? 3 : 4)                                                 \
        attention_decode_##HD(const DecodeArgs p) {                                                                   \
        attend_decode<HD>(p);                                                                                         \
    }

DECODE(64)
DECODE(80)
DECODE(96)
DECODE(128)
DECODE(256)

// RING_DEPTH of the host: tiles of a warp on their way, in 96 KB of shared memory (192 KB with heads of 256).
#if __CUDA_ARCH__ >= 900
#define RING(HD, DEPTH, BLOCKS)                                                                                       \
    extern "C" __global__ void __launch_bounds__(ATT_WARPS * 32, BLOCKS) attention_ring_##HD(const DecodeArgs p) {    \
        attend_ring<HD, DEPTH>(p);                                                                                    \
    }
#else
#define RING(HD, DEPTH, BLOCKS)                                                                                       \
    extern "C" __global__ void attention_ring_##HD(const DecodeArgs) {}
#endif

RING(64, 6, 2)
RING(80, 4, 2)
RING(96, 4, 2)
RING(128, 3, 2)
RING(256, 3, 1)
