// Choosing tokens. `scan_logits` puts the rules on the logits and finds the best of each chunk, many blocks a row;
// `choose` draws, one block a row. The draw depends on the logits, the slot's rules and (seed, index) only.
//
// Floor: the logits once (4 bytes a token of the vocabulary) for a greedy row.

struct Partial {
    float best, sum;         // sum of exp(logit - best), where the row wants log-probabilities
    int id, reserved;
};

struct SampleArgs {
    State s;
    float* logits;           // [sample][stride]
    Partial* partials;       // [sample][chunks]
    const int* slots;        // [sample]
    int* indices;            // [sample]: how many tokens were generated before
    int* row_position;       // of the decode rows, which `choose` moves on; null where the host sends them
    Choice* results;         // [ring][max_samples], memory of the host
    int stride, chunks, ring, max_samples;
};

constexpr int SCAN_THREADS = 256;

__device__ __forceinline__ bool better(float a, int ai, float b, int bi) { return a > b || (a == b && ai < bi); }

extern "C" __global__ void __launch_bounds__(SCAN_THREADS) scan_logits(const SampleArgs p) {
    __shared__ float bests[8], sums[8];
    __shared__ int ids[8];
    wait_for_inputs();
    let_dependents_start();
    const int sample = blockIdx.y, slot = p.slots[sample];
    if (slot == p.s.dummy_slot) return;
    const SlotParams rules = p.s.params[slot];
    float* logits = p.logits + (size_t)sample * p.stride;
    const bool masked = p.s.mask_step[slot] == p.s.step[0];
    const bool min_tokens = (rules.flags & HAS_END_IDS) && (u32)p.indices[sample] < rules.min_tokens;
    const bool penalties = rules.flags & HAS_PENALTIES, biased = rules.flags & HAS_BIAS;
    const bool rewrite = masked || min_tokens || penalties || biased;
    const bool wants_sum = rules.logprobs >= 0;

    // Chunks are multiples of 32 tokens.
    const int per = ((p.s.vocab + p.chunks - 1) / p.chunks + 31) / 32 * 32;
    const int from = blockIdx.x * per, to = min(p.s.vocab, from + per);
    const size_t bits = (size_t)slot * p.s.mask_words, wide = (size_t)slot * p.s.vocab;
    float best = -INF, sum = 0.0f;
    int id = -1;
    auto take = [&](float v, int i) {
        if (!(v > -INF)) return;
        if (v > best || id < 0) {
            if (wants_sum) sum = sum * __expf(best - v) + 1.0f;
            best = v, id = i;
        } else if (wants_sum) {
            sum += __expf(v - best);
        }
    };
    if (!rewrite) {
        for (int i = from + threadIdx.x * 4; i < to; i += SCAN_THREADS * 4) {
            float4 v = *(const float4*)(logits + i);
            take(v.x, i);
            if (i + 1 < to) take(v.y, i + 1);
            if (i + 2 < to) take(v.z, i + 2);
            if (i + 3 < to) take(v.w, i + 3);
        }
    } else {
        for (int i = from + threadIdx.x; i < to; i += SCAN_THREADS) {
            float v = logits[i];
            const u32 bit = 1u << (i % 32);
            if (masked && !(p.s.mask_bits[bits + i / 32] & bit)) v = -INF;
            if (biased) v += p.s.bias[wide + i];
            if (min_tokens && (p.s.end_bits[bits + i / 32] & bit)) v = -INF;
            if (penalties) {
                const u32 count = p.s.generated[wide + i];
                if (count || (p.s.prompt_bits[bits + i / 32] & bit)) {
                    v = v > 0.0f ? v / rules.repetition : v * rules.repetition;
                }
                if (count) v -= rules.presence + rules.frequency * (float)count;
            }
            logits[i] = v;
            take(v, i);
        }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        const float b = __shfl_xor_sync(0xffffffffu, best, offset), s = __shfl_xor_sync(0xffffffffu, sum, offset);
        const int i = __shfl_xor_sync(0xffffffffu, id, offset);
        if (i < 0) continue;
        if (id < 0) {
            best = b, sum = s, id = i;
        } else {
            const float m = fmaxf(best, b);
            if (wants_sum) sum = sum * __expf(best - m) + s * __expf(b - m);
            if (better(b, i, best, id)) id = i;
            best = m;
        }
    }
    const int warp = threadIdx.x >> 5;
    if ((threadIdx.x & 31) == 0) bests[warp] = best, sums[warp] = sum, ids[warp] = id;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < 8; w++) {
        if (ids[w] < 0) continue;
        if (id < 0) {
            best = bests[w], sum = sums[w], id = ids[w];
        } else {
            const float m = fmaxf(best, bests[w]);
            if (wants_sum) sum = sum * __expf(best - m) + sums[w] * __expf(bests[w] - m);
            if (better(bests[w], ids[w], best, id)) id = ids[w];
            best = m;
        }
    }
    Partial out = {best, sum, id, 0};
    p.partials[(size_t)sample * p.chunks + blockIdx.x] = out;
}

// Philox 4x32-10 with counter (index, 0, 0, 0): the first two words as a fraction of 2^64.
__device__ u64 random_fraction(u64 seed, u64 index) {
    u32 c0 = (u32)index, c1 = (u32)(index >> 32), c2 = 0, c3 = 0, k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        const u64 a = 0xd2511f53ull * c0, b = 0xcd9e8d57ull * c2;
        const u32 n0 = (u32)(b >> 32) ^ c1 ^ k0, n2 = (u32)(a >> 32) ^ c3 ^ k1;
        c1 = (u32)b, c3 = (u32)a, c0 = n0, c2 = n2;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
    return (u64)c0 << 32 | c1;
}

constexpr int CHOOSE_THREADS = 1024;
constexpr int CHOOSE_WARPS = CHOOSE_THREADS / 32;
// Weights are fixed-point numbers, so that sums do not depend on their order.
constexpr float ONE = 1099511627776.0f;

// Distance from the best logit in units of the temperature, 2^-27 each; 0 is the best, what is 32 or more away is last.
__device__ __forceinline__ u32 distance(float logit, float best, float per_temperature) {
    const float t = (best - logit) * per_temperature;
    return t < 31.99f ? (u32)(t * 134217728.0f) : 0xffffffffu;
}
__device__ __forceinline__ u64 weight_of(float logit, float best, float per_temperature) {
    const float t = (best - logit) * per_temperature;
    return t < 31.99f ? (u64)(__expf(-t) * ONE) : 0;
}

// The smallest distance whose tokens, with all nearer ones, reach `goal` (counts or weights). `below` becomes what the
// nearer ones alone have.
template <bool WEIGHTS>
__device__ u32 reach(const float* logits, int vocab, float best, float per_temperature, u32 last, u64 goal, u64* bins,
                     u64& below) {
    __shared__ u32 digit_found;
    __shared__ u64 before;
    u32 prefix = 0;
    u64 passed = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) bins[threadIdx.x] = 0;
        if (threadIdx.x == 0) digit_found = 255, before = passed;
        __syncthreads();
        for (int i = threadIdx.x; i < vocab; i += CHOOSE_THREADS) {
            const u32 d = distance(logits[i], best, per_temperature);
            if (d > last || (shift < 24 && (d >> (shift + 8)) != (prefix >> (shift + 8)))) continue;
            const u64 amount = WEIGHTS ? weight_of(logits[i], best, per_temperature) : 1;
            if (amount) atomicAdd(bins + ((d >> shift) & 255), amount);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            u64 sum = passed;
            for (int b = 0; b < 256; b++) {
                if (sum + bins[b] >= goal || b == 255) {
                    digit_found = b, before = sum;
                    break;
                }
                sum += bins[b];
            }
        }
        __syncthreads();
        prefix |= digit_found << shift;
        passed = before;
        __syncthreads();
    }
    below = passed;
    return prefix;
}

__device__ u64 block_sum(u64 v, u64* scratch) {
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    u64 sum = 0;
    for (int w = 0; w < CHOOSE_WARPS; w++) sum += scratch[w];
    __syncthreads();
    return sum;
}

// Draws a token of a row by its rules. All threads of the block return the same.
__device__ int draw(const SampleArgs& p, const SlotParams& rules, const float* logits, int index, float best, u64* bins,
                    u64* scratch) {
    __shared__ u64 weights[CHOOSE_WARPS];
    __shared__ int ties[CHOOSE_WARPS];
    __shared__ int chosen;
    const int vocab = p.s.vocab, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const float scale = 1.0f / rules.temperature;
    u32 last = 0xfffffffeu;
    // How many tokens at distance `last` stay, lowest ids first.
    u64 keep = ~0ull;
    if (rules.top_k > 0 && rules.top_k < vocab) {
        u64 below;
        last = reach<false>(logits, vocab, best, scale, 0xffffffffu, (u64)rules.top_k, bins, below);
        keep = (u64)rules.top_k - below;
    }
    if (rules.top_p < 1.0f) {
        u64 sum = 0, tied = 0, tie_weight = 0;
        for (int i = threadIdx.x; i < vocab; i += CHOOSE_THREADS) {
            const u32 d = distance(logits[i], best, scale);
            if (d < last) sum += weight_of(logits[i], best, scale);
            if (d == last) tied++, tie_weight += weight_of(logits[i], best, scale);
        }
        sum = block_sum(sum, scratch), tied = block_sum(tied, scratch), tie_weight = block_sum(tie_weight, scratch);
        if (tied > 0) sum += keep < tied ? tie_weight / tied * keep : tie_weight;
        const u64 goal = max((u64)1, (u64)((double)sum * (double)rules.top_p));
        u64 below;
        const u32 edge = reach<true>(logits, vocab, best, scale, last, goal, bins, below);
        const float t = (float)edge / 134217728.0f;
        const u64 one = max((u64)1, (u64)(__expf(-t) * ONE));
        const u64 needed = goal > below ? (goal - below + one - 1) / one : 1;
        keep = edge == last ? min(keep, needed) : needed;
        last = edge;
    }
    const float farthest = rules.min_p > 0.0f ? -__logf(rules.min_p) + 1e-6f : INF;

    // Each warp has a range of ids, so that the order of ids is the order of the sum.
    const int per = (vocab + CHOOSE_WARPS - 1) / CHOOSE_WARPS;
    const int from = warp * per, to = min(vocab, from + per);
    u64 sum = 0, tie_one = 0;
    int tied = 0;
    auto stays = [&](float logit) { return (best - logit) * scale <= farthest; };
    for (int i = from + lane; i < to; i += 32) {
        const float l = logits[i];
        const u32 d = distance(l, best, scale);
        if (!stays(l)) continue;
        if (d < last) sum += weight_of(l, best, scale);
        if (d == last) tied++, tie_one = weight_of(l, best, scale);
    }
    for (int offset = 16; offset > 0; offset >>= 1) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        tied += __shfl_xor_sync(0xffffffffu, tied, offset);
        const u64 other = __shfl_xor_sync(0xffffffffu, tie_one, offset);
        tie_one = max(tie_one, other);
    }
    if (lane == 0) {
        scratch[warp] = tie_one;
        weights[warp] = sum;
        ties[warp] = tied;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        u64 one = 0, total = 0, left = keep;
        for (int w = 0; w < CHOOSE_WARPS; w++) one = max(one, scratch[w]);
        for (int w = 0; w < CHOOSE_WARPS; w++) {
            const u64 mine = min(left, (u64)ties[w]);
            left -= mine;
            ties[w] = (int)mine;
            weights[w] += mine * one;
            total += weights[w];
        }
        u64 target = __umul64hi(random_fraction(rules.seed, (u64)index), total);
        int w = 0;
        while (w < CHOOSE_WARPS - 1 && target >= weights[w]) target -= weights[w++];
        scratch[0] = target, scratch[1] = one;
        chosen = w;
    }
    __syncthreads();
    const int owner = chosen;
    const u64 target = scratch[0], one = scratch[1];
    __syncthreads();
    if (warp == owner) {
        const u64 mine = (u64)ties[warp];
        u64 passed = 0, tie_rank = 0;
        int found = -1, fallback = -1;
        for (int at = from; at < to; at += 32) {
            const int i = at + lane;
            const float l = i < to ? logits[i] : -INF;
            const u32 d = distance(l, best, scale);
            const bool in = i < to && stays(l), tie = in && d == last;
            const u32 tie_mask = __ballot_sync(0xffffffffu, tie);
            const u64 rank = tie_rank + __popc(tie_mask & ((1u << lane) - 1));
            tie_rank += __popc(tie_mask);
            u64 w = 0;
            if (in && d < last) w = weight_of(l, best, scale);
            if (tie && rank < mine) w = one;
            u64 upto = w;
            for (int offset = 1; offset < 32; offset <<= 1) {
                const u64 o = __shfl_up_sync(0xffffffffu, upto, offset);
                if (lane >= offset) upto += o;
            }
            const u32 hit = __ballot_sync(0xffffffffu, w > 0 && passed + upto > target);
            const u32 any = __ballot_sync(0xffffffffu, w > 0);
            if (any) fallback = at + 31 - __clz(any);
            if (hit) {
                found = at + __ffs(hit) - 1;
                break;
            }
            passed += __shfl_sync(0xffffffffu, upto, 31);
        }
        if (lane == 0) chosen = found >= 0 ? found : fallback;
    }
    __syncthreads();
    return chosen;
}

// The best token behind (value, id) in the order of logits, over the whole block.
__device__ void next_best(const float* logits, int vocab, float& value, int& id, bool first, float* vs, int* is) {
    float best = -INF;
    int at = -1;
    for (int i = threadIdx.x; i < vocab; i += CHOOSE_THREADS) {
        const float l = logits[i];
        if (!(l > -INF) || !(first || better(value, id, l, i)) || i == (first ? -1 : id)) continue;
        if (at < 0 || better(l, i, best, at)) best = l, at = i;
    }
    for (int offset = 16; offset > 0; offset >>= 1) {
        const float b = __shfl_xor_sync(0xffffffffu, best, offset);
        const int i = __shfl_xor_sync(0xffffffffu, at, offset);
        if (i >= 0 && (at < 0 || better(b, i, best, at))) best = b, at = i;
    }
    if ((threadIdx.x & 31) == 0) vs[threadIdx.x >> 5] = best, is[threadIdx.x >> 5] = at;
    __syncthreads();
    best = -INF, at = -1;
    for (int w = 0; w < CHOOSE_WARPS; w++) {
        if (is[w] >= 0 && (at < 0 || better(vs[w], is[w], best, at))) best = vs[w], at = is[w];
    }
    __syncthreads();
    value = best, id = at;
}

extern "C" __global__ void __launch_bounds__(CHOOSE_THREADS, 1) choose(const SampleArgs p) {
    __shared__ u64 bins[256], scratch[CHOOSE_WARPS];
    __shared__ float vs[CHOOSE_WARPS];
    __shared__ int is[CHOOSE_WARPS];
    wait_for_inputs();
    let_dependents_start();
    const int sample = blockIdx.x, slot = p.slots[sample];
    const u32 step = p.s.step[0];
    if (slot != p.s.dummy_slot) {
        const SlotParams rules = p.s.params[slot];
        const float* logits = p.logits + (size_t)sample * p.stride;
        const Partial* partials = p.partials + (size_t)sample * p.chunks;
        const int index = p.indices[sample];
        float best = -INF, sum = 0.0f;
        int id = -1;
        for (int k = 0; k < p.chunks; k++) {
            const Partial q = partials[k];
            if (q.id < 0) continue;
            if (id < 0) {
                best = q.best, sum = q.sum, id = q.id;
            } else {
                const float m = fmaxf(best, q.best);
                sum = sum * __expf(best - m) + q.sum * __expf(q.best - m);
                if (better(q.best, q.id, best, id)) id = q.id;
                best = m;
            }
        }
        const bool greedy = rules.temperature == 0.0f || rules.top_k == 1 || rules.top_p == 0.0f;
        int token = id;
        if (!greedy && id >= 0 && best < INF) token = draw(p, rules, logits, index, best, bins, scratch);

        Choice* out = p.results + (size_t)(step % p.ring) * p.max_samples + sample;
        if (rules.logprobs >= 0 && id >= 0) {
            const float log_sum = best + logf(sum);
            const int count = min(rules.logprobs, MAX_LOGPROBS);
            float value = 0.0f;
            int at = -1, written = 0;
            for (int k = 0; k < count; k++) {
                next_best(logits, p.s.vocab, value, at, k == 0, vs, is);
                if (at < 0) break;
                if (threadIdx.x == 0) out->top_id[k] = at, out->top_logprob[k] = value - log_sum;
                written = k + 1;
            }
            if (threadIdx.x == 0) out->top_count = written, out->logprob = logits[token] - log_sum;
        }
        if (threadIdx.x == 0) {
            out->token = token;
            if (token >= 0) {
                p.s.last_token[slot] = (u32)token;
                if (rules.flags & HAS_PENALTIES) {
                    u16* count = p.s.generated + (size_t)slot * p.s.vocab + token;
                    if (*count < 0xffff) *count += 1;
                }
            } else {
                p.s.last_token[slot] = 0;
            }
            if (p.row_position) p.row_position[sample] += 1, p.indices[sample] += 1;
        }
    }
    // The last block makes the results visible to the host and moves on to the next step.
    if (threadIdx.x == 0) {
        __threadfence_system();
        if (atomicAdd(p.s.step + 1, 1u) == gridDim.x - 1) p.s.step[1] = 0, p.s.step[0] = step + 1;
    }
}

// A step that samples nothing still counts.
extern "C" __global__ void count_step(const State s) {
    wait_for_inputs();
    let_dependents_start();
    s.step[0] += 1;
}
