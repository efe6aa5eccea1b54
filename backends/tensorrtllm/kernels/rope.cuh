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

// Four outputs of a head and what turns them; of every row the same.
struct RopeOutputs {
    uint2 bias, norm;
    int i, head;    // the first of them in its head
    bool turned;    // a query or a key
};

__device__ __forceinline__ RopeOutputs rope_outputs(const RopeArgs& p, int o, bool is_output) {
    RopeOutputs out = {make_uint2(0, 0), make_uint2(0, 0), o % p.head_dim, o / p.head_dim, false};
    out.turned = is_output && out.head < p.q_heads + p.kv_heads;
    if (p.bias && is_output) out.bias = *(const uint2*)(p.bias + o);
    if (p.q_norm && out.turned) out.norm = *(const uint2*)((out.head < p.q_heads ? p.q_norm : p.k_norm) + out.i);
    return out;
}

__device__ __forceinline__ void rope_angles(const RopeArgs& p, const RopeOutputs& t, int position, float4 (&angles)[2]) {
    const int half = p.head_dim / 2;
    const float4* of = (const float4*)(p.angles + (size_t)position * half + t.i % half);
    if (t.turned) angles[0] = of[0], angles[1] = of[1];
}

// The lanes of a warp have 128 outputs of a row, four each: one head of 128 or two of 64.
__device__ __forceinline__ float4 rope_turn(const RopeArgs& p, const RopeOutputs& t, float4 v, const float4 (&angles)[2]) {
    const int dim = p.head_dim, half = dim / 2;
    v.x += low_f32(t.bias.x), v.y += high_f32(t.bias.x), v.z += low_f32(t.bias.y), v.w += high_f32(t.bias.y);
    if (p.q_norm) {
        float sum = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        for (int lanes = 1; lanes < dim / 4; lanes *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
        if (t.turned) {
            const float scale = rsqrtf(sum / (float)dim + p.eps);
            v.x *= scale * low_f32(t.norm.x), v.y *= scale * high_f32(t.norm.x);
            v.z *= scale * low_f32(t.norm.y), v.w *= scale * high_f32(t.norm.y);
        }
    }
    // The other half of a lane's pairs is in another lane.
    float4 u;
    u.x = __shfl_xor_sync(0xffffffffu, v.x, half / 4), u.y = __shfl_xor_sync(0xffffffffu, v.y, half / 4);
    u.z = __shfl_xor_sync(0xffffffffu, v.z, half / 4), u.w = __shfl_xor_sync(0xffffffffu, v.w, half / 4);
    if (t.turned) {
        const float sign = t.i < half ? -1.0f : 1.0f;
        v.x = v.x * angles[0].x + sign * u.x * angles[0].y, v.y = v.y * angles[0].z + sign * u.y * angles[0].w;
        v.z = v.z * angles[1].x + sign * u.z * angles[1].y, v.w = v.w * angles[1].z + sign * u.w * angles[1].w;
    }
    return v;
}

// Queries go to `out`, keys and values into the row's block.
__device__ __forceinline__ u16* rope_place(const RopeArgs& p, const RopeOutputs& t, u16* out, int2 place) {
    const int of_kv = t.head - p.q_heads;
    if (of_kv < 0) return out;
    const bool key = of_kv < p.kv_heads;
    const size_t head = (size_t)place.y * p.kv_heads + (key ? of_kv : of_kv - p.kv_heads);
    return (key ? p.keys : p.values) + (head * p.block_tokens + place.x % p.block_tokens) * p.head_dim + t.i;
}
