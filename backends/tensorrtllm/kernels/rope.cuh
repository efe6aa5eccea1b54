// Rotary embedding and the write of keys and values, as it is fused behind the product that makes them.

struct RopeArgs {
    const u16* bias;         // [q + 2 * kv heads][head_dim], or none; so the norms of heads
    const u16* q_norm;
    const u16* k_norm;
    const float2* angles;    // [position][head_dim / 2] of (cos, sin); pairs are (i, i + head_dim / 2)
    const int* row_slot;
    const int* row_position;
    const int* tables;       // [slot][table_width]
    u16* keys;               // [block][kv head][block_tokens][head_dim]
    u16* values;
    int table_width, block_tokens, q_heads, kv_heads, head_dim;
    float eps;
};

// Where a head of a row goes: queries stay in `qkv`, keys and values go into their block.
__device__ __forceinline__ u16* rope_target(const RopeArgs& p, u16* qkv, int row, int head) {
    if (head < p.q_heads) return qkv + ((size_t)row * (p.q_heads + 2 * p.kv_heads) + head) * p.head_dim;
    const int position = p.row_position[row];
    const bool key = head < p.q_heads + p.kv_heads;
    const int kv = key ? head - p.q_heads : head - p.q_heads - p.kv_heads;
    const int block = p.tables[(size_t)p.row_slot[row] * p.table_width + position / p.block_tokens];
    const size_t at = (((size_t)block * p.kv_heads + kv) * p.block_tokens + position % p.block_tokens) * p.head_dim;
    return (key ? p.keys : p.values) + at;
}

// A warp holds 128 outputs of a row, four a lane from `o` on: one head of 128 or two of 64.
__device__ __forceinline__ void rope_four(const RopeArgs& p, float4 v, u16* qkv, int row, int o, bool inside) {
    const int dim = p.head_dim, half = dim / 2, head = o / dim, i = o % dim;
    const bool turned = head < p.q_heads + p.kv_heads;
    if (p.bias && inside) {
        const uint2 b = *(const uint2*)(p.bias + o);
        v.x += low_f32(b.x), v.y += high_f32(b.x), v.z += low_f32(b.y), v.w += high_f32(b.y);
    }
    if (p.q_norm) {
        float sum = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        for (int lanes = 1; lanes < dim / 4; lanes *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
        if (turned) {
            const float scale = rsqrtf(sum / (float)dim + p.eps);
            const uint2 w = *(const uint2*)((head < p.q_heads ? p.q_norm : p.k_norm) + i);
            v.x *= scale * low_f32(w.x), v.y *= scale * high_f32(w.x);
            v.z *= scale * low_f32(w.y), v.w *= scale * high_f32(w.y);
        }
    }
    // The other half of a lane's pairs is in another lane.
    float4 u;
    u.x = __shfl_xor_sync(0xffffffffu, v.x, half / 4), u.y = __shfl_xor_sync(0xffffffffu, v.y, half / 4);
    u.z = __shfl_xor_sync(0xffffffffu, v.z, half / 4), u.w = __shfl_xor_sync(0xffffffffu, v.w, half / 4);
    if (!inside) return;
    if (turned) {
        const float sign = i < half ? -1.0f : 1.0f;
        const float4* angle = (const float4*)(p.angles + (size_t)p.row_position[row] * half + i % half);
        const float4 a = angle[0], b = angle[1];
        v.x = v.x * a.x + sign * u.x * a.y, v.y = v.y * a.z + sign * u.y * a.w;
        v.z = v.z * b.x + sign * u.z * b.y, v.w = v.w * b.z + sign * u.w * b.w;
    }
    *(uint2*)(rope_target(p, qkv, row, head) + i) = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
}
