// What happens to a row on its own: embedding, norm, gated activation, rotary embedding with the write of keys and
// values. Floor of each: its inputs once and its outputs once.

// hidden[row] = table[token of row]. A row without a token of its own takes the one that its slot sampled last.
extern "C" __global__ void __launch_bounds__(128)
    embed(const u16* table, const int* row_token, const int* row_slot, const u32* last_token, u16* hidden, int size) {
    wait_for_inputs();
    let_dependents_start();
    const int row = blockIdx.x;
    int token = row_token[row];
    if (token < 0) token = (int)last_token[row_slot[row]];
    const uint4* from = (const uint4*)(table + (size_t)token * size);
    uint4* to = (uint4*)(hidden + (size_t)row * size);
    for (int i = threadIdx.x; i < size / 8; i += blockDim.x) to[i] = from[i];
}

// out[i] = x[rows[i]], or x[i] without `rows`, normalised: x * w / sqrt(mean(x^2) + eps).
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const u16* x, const u16* weight, const int* rows, u16* out, int size, float eps) {
    __shared__ float sums[8];
    wait_for_inputs();
    let_dependents_start();
    const int from_row = rows ? rows[blockIdx.x] : blockIdx.x;
    const uint4* from = (const uint4*)(x + (size_t)from_row * size);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * size);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < size / 8; i += 256) {
        uint4 v = from[i];
        u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float lo = low_f32(words[j]), hi = high_f32(words[j]);
            sum += lo * lo + hi * hi;
        }
    }
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += sums[i];
    const float scale = rsqrtf(sum / (float)size + eps);
    for (int i = threadIdx.x; i < size / 8; i += 256) {
        uint4 v = from[i], w = ((const uint4*)weight)[i];
        u32 x4[4] = {v.x, v.y, v.z, v.w}, w4[4] = {w.x, w.y, w.z, w.w}, y4[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            y4[j] = pack_bf16(low_f32(x4[j]) * scale * low_f32(w4[j]), high_f32(x4[j]) * scale * high_f32(w4[j]));
        }
        to[i] = make_uint4(y4[0], y4[1], y4[2], y4[3]);
    }
}

// out[row] = x[rows[row]]: the rows whose logits are wanted.
extern "C" __global__ void __launch_bounds__(128) gather(const u16* x, const int* rows, u16* out, int size) {
    wait_for_inputs();
    let_dependents_start();
    const uint4* from = (const uint4*)(x + (size_t)rows[blockIdx.x] * size);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * size);
    for (int i = threadIdx.x; i < size / 8; i += blockDim.x) to[i] = from[i];
}

__device__ __forceinline__ float silu(float v) { return v / (1.0f + __expf(-v)); }

// out[row][i] = silu(x[row][i]) * x[row][size + i]. A thread takes 8 elements; grid (chunks, rows).
extern "C" __global__ void __launch_bounds__(256) silu_mul(const u16* x, u16* out, int size) {
    wait_for_inputs();
    let_dependents_start();
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= size / 8) return;
    const uint4* row = (const uint4*)(x + (size_t)blockIdx.y * 2 * size);
    uint4 a = row[i], b = row[size / 8 + i];
    u32 a4[4] = {a.x, a.y, a.z, a.w}, b4[4] = {b.x, b.y, b.z, b.w}, y[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        y[j] = pack_bf16(silu(low_f32(a4[j])) * low_f32(b4[j]), silu(high_f32(a4[j])) * high_f32(b4[j]));
    }
    ((uint4*)(out + (size_t)blockIdx.y * size))[i] = make_uint4(y[0], y[1], y[2], y[3]);
}

// Adds biases, normalises heads where the model does, turns queries (in place) and keys, and writes keys and values
// into their blocks. A warp takes one head of one row; grid (ceil(heads / 8), rows), heads = q + 2 * kv.
// `angles` is [position][head_dim / 2] of (cos, sin); pairs are (i, i + head_dim / 2).
extern "C" __global__ void __launch_bounds__(256)
    rope_write(u16* qkv, const u16* bias, const u16* q_norm, const u16* k_norm, float eps, const float2* angles,
               const int* row_slot, const int* row_position, const int* tables, int table_width, u16* keys,
               u16* values, int block_tokens, int q_heads, int kv_heads, int head_dim) {
    wait_for_inputs();
    let_dependents_start();
    const int lane = threadIdx.x & 31, head = blockIdx.x * 8 + (threadIdx.x >> 5), row = blockIdx.y;
    const int heads = q_heads + 2 * kv_heads, half = head_dim / 2;
    if (head >= heads) return;
    u16* x = qkv + ((size_t)row * heads + head) * head_dim;
    const u16* b = bias ? bias + head * head_dim : (const u16*)0;
    const int position = row_position[row];
    u16* to = x;
    if (head >= q_heads) {
        const int kv = head < q_heads + kv_heads ? head - q_heads : head - q_heads - kv_heads;
        const int block = tables[(size_t)row_slot[row] * table_width + position / block_tokens];
        const size_t at = (((size_t)block * kv_heads + kv) * block_tokens + position % block_tokens) * head_dim;
        to = (head < q_heads + kv_heads ? keys : values) + at;
    }
    const u16* norm = head < q_heads ? q_norm : head < q_heads + kv_heads ? k_norm : (const u16*)0;
    // Lane's pairs: elements i, i + 1 and half + i, half + i + 1.
    float scale = 1.0f;
    if (norm) {
        float sum = 0.0f;
        for (int i = lane; i < head_dim; i += 32) {
            float v = bf16_f32(x[i]) + (b ? bf16_f32(b[i]) : 0.0f);
            sum += v * v;
        }
        scale = rsqrtf(warp_sum(sum) / (float)head_dim + eps);
    }
    for (int i = 2 * lane; i < half; i += 64) {
        u32 pa = *(const u32*)(x + i), pb = *(const u32*)(x + half + i);
        float a0 = low_f32(pa), a1 = high_f32(pa), b0 = low_f32(pb), b1 = high_f32(pb);
        if (b) {
            u32 ba = *(const u32*)(b + i), bb = *(const u32*)(b + half + i);
            a0 += low_f32(ba), a1 += high_f32(ba), b0 += low_f32(bb), b1 += high_f32(bb);
        }
        if (norm) {
            u32 na = *(const u32*)(norm + i), nb = *(const u32*)(norm + half + i);
            a0 *= scale * low_f32(na), a1 *= scale * high_f32(na);
            b0 *= scale * low_f32(nb), b1 *= scale * high_f32(nb);
        }
        if (head < q_heads + kv_heads) {
            const float4 angle = *(const float4*)(angles + (size_t)position * half + i);
            float t0 = a0 * angle.x - b0 * angle.y, t1 = a1 * angle.z - b1 * angle.w;
            b0 = b0 * angle.x + a0 * angle.y, b1 = b1 * angle.z + a1 * angle.w;
            a0 = t0, a1 = t1;
        }
        *(u32*)(to + i) = pack_bf16(a0, a1);
        *(u32*)(to + half + i) = pack_bf16(b0, b1);
    }
}

// Fills with numbers of mean 0 and the given deviation that depend on (seed, index) only: weights of no meaning.
extern "C" __global__ void __launch_bounds__(256) fill_random(u16* out, u64 count, u64 seed, float mean, float deviation) {
    for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < count; i += (u64)gridDim.x * 256) {
        u64 h = (i + 1) * 0x9e3779b97f4a7c15ull + seed;
        h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
        h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
        h ^= h >> 31;
        // Four 16-bit uniforms: their sum is near enough to a normal distribution (deviation 1 / sqrt(3)).
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) sum += (float)((h >> (16 * j)) & 0xffff) * (1.0f / 65536.0f) - 0.5f;
        out[i] = round_bf16(mean + sum * 1.7320508f * deviation);
    }
}
