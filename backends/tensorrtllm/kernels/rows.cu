// What happens to a row on its own: embedding, norm, gated activation, rotary embedding with the write of keys and
// values. Floor of each: its inputs once and its outputs once.

__device__ __forceinline__ uint4 round_eight(float4 a, float4 b) {
    return make_uint4(pack_bf16(a.x, a.y), pack_bf16(a.z, a.w), pack_bf16(b.x, b.y), pack_bf16(b.z, b.w));
}

// residual[row] = table[token of row], and a copy in bf16; where the norm behind it has no launch of its own, the copy is
// times `gain` and squares[row][0] the sum of squares. A row without a token of its own takes the one that its slot sampled
// last.
extern "C" __global__ void __launch_bounds__(128)
    embed(const u16* table, const int* row_token, const int* row_slot, const u32* last_token, float* residual,
          u16* copy, const u16* gain, float* squares, int size) {
    __shared__ float sums[4];
    wait_for_inputs();
    let_dependents_start();
    const int row = blockIdx.x;
    int token = row_token[row];
    if (token < 0) token = (int)last_token[row_slot[row]];
    const uint4* from = (const uint4*)(table + (size_t)token * size);
    uint4* to = (uint4*)(copy + (size_t)row * size);
    float4* wide = (float4*)(residual + (size_t)row * size);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < size / 8; i += blockDim.x) {
        uint4 v = from[i];
        const float4 a = make_float4(low_f32(v.x), high_f32(v.x), low_f32(v.y), high_f32(v.y));
        const float4 b = make_float4(low_f32(v.z), high_f32(v.z), low_f32(v.w), high_f32(v.w));
        wide[2 * i] = a, wide[2 * i + 1] = b;
        if (gain) {
            sum += a.x * a.x + a.y * a.y + a.z * a.z + a.w * a.w + b.x * b.x + b.y * b.y + b.z * b.z + b.w * b.w;
            const uint4 w = ((const uint4*)gain)[i];
            v.x = pack_bf16(a.x * low_f32(w.x), a.y * high_f32(w.x)), v.y = pack_bf16(a.z * low_f32(w.y), a.w * high_f32(w.y));
            v.z = pack_bf16(b.x * low_f32(w.z), b.y * high_f32(w.z)), v.w = pack_bf16(b.z * low_f32(w.w), b.w * high_f32(w.w));
        }
        to[i] = v;
    }
    if (!gain) return;
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x == 0) squares[(size_t)row * SQUARES] = sums[0] + sums[1] + sums[2] + sums[3];
}

// out[i] = x[rows[i]], or x[i] without `rows`, normalised: x * w / sqrt(mean(x^2) + eps).
//
// The next kernel may start before this one's inputs are there: it is a product, which reads nothing but weights before
// this one has ended.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* x, const u16* weight, const int* rows, u16* out, int size, float eps) {
    __shared__ float sums[8];
    let_dependents_start();
    wait_for_inputs();
    const int from_row = rows ? rows[blockIdx.x] : blockIdx.x;
    const float4* from = (const float4*)(x + (size_t)from_row * size);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * size);
    float sum = 0.0f;
#pragma unroll 4
    for (int i = threadIdx.x; i < size / 4; i += 256) {
        const float4 v = from[i];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += sums[i];
    const float scale = rsqrtf(sum / (float)size + eps);
#pragma unroll 2
    for (int i = threadIdx.x; i < size / 8; i += 256) {
        float4 a = from[2 * i], b = from[2 * i + 1];
        const uint4 w = ((const uint4*)weight)[i];
        a.x *= scale * low_f32(w.x), a.y *= scale * high_f32(w.x), a.z *= scale * low_f32(w.y), a.w *= scale * high_f32(w.y);
        b.x *= scale * low_f32(w.z), b.y *= scale * high_f32(w.z), b.z *= scale * low_f32(w.w), b.w *= scale * high_f32(w.w);
        to[i] = round_eight(a, b);
    }
}

// out[row] = x[rows[row]] in bf16: the rows whose logits are wanted.
extern "C" __global__ void __launch_bounds__(128) gather(const float* x, const int* rows, u16* out, int size) {
    wait_for_inputs();
    let_dependents_start();
    const float4* from = (const float4*)(x + (size_t)rows[blockIdx.x] * size);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * size);
    for (int i = threadIdx.x; i < size / 8; i += blockDim.x) to[i] = round_eight(from[2 * i], from[2 * i + 1]);
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

// Element i of a weight without meaning is number `start + i` of those that `DummyNumbers` of the checkpoints describes:
// word n % 4 of Philox 4x32-10 with counter n / 4, the sum of its bytes less 510, times `scale`; `halves` for rounding to
// f16 first. A `scale` of 0 gives ones.
extern "C" __global__ void __launch_bounds__(256)
    fill_dummy(u16* out, u64 count, u64 start, u32 seed, float scale, int halves) {
    const u64 first = start / 4, last = (start + count + 3) / 4;
    for (u64 at = first + (u64)blockIdx.x * 256 + threadIdx.x; at < last; at += (u64)gridDim.x * 256) {
        u32 c[4] = {(u32)at, (u32)(at >> 32), 0, 0}, k0 = seed, k1 = 0;
#pragma unroll
        for (int round = 0; round < 10; round++) {
            const u64 a = 0xd2511f53ull * c[0], b = 0xcd9e8d57ull * c[2];
            c[0] = (u32)(b >> 32) ^ c[1] ^ k0, c[1] = (u32)b, c[2] = (u32)(a >> 32) ^ c[3] ^ k1, c[3] = (u32)a;
            k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u64 i = at * 4 + j - start;
            const u32 sum = __dp4a(c[j], 0x01010101u, 0u);
            float v = scale == 0.0f ? 1.0f : __fmul_rn((float)(int)sum - 510.0f, scale);
            if (halves) asm("{\n.reg .f16 h;\ncvt.rn.f16.f32 h, %0;\ncvt.f32.f16 %0, h;\n}" : "+f"(v));
            // What lies before the start wraps around to more than any count.
            if (i < count) out[i] = round_bf16(v);
        }
    }
}
