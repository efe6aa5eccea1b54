// Applies the differences that the host sends: one block a change.

enum Change { TABLE, PARAMS, CLEAR, PROMPT_ID, GENERATED_ID, END_ID, BIAS, MASK };

// `words` holds the payload of this change.
struct ChangeHead {
    int kind, slot, first, count;
    u32 words;               // offset into the payload, in 4-byte words
    u32 reserved[3];
};

extern "C" __global__ void __launch_bounds__(256)
    apply_changes(const State s, const ChangeHead* heads, const u32* payload, u32 step) {
    const ChangeHead h = heads[blockIdx.x];
    const u32* words = payload + h.words;
    const size_t slot = h.slot, bits = slot * s.mask_words;
    for (int i = threadIdx.x; i < h.count; i += 256) {
        const u32 w = words[i];
        switch (h.kind) {
            case TABLE: s.tables[slot * s.table_width + h.first + i] = (int)w; break;
            case PARAMS: ((u32*)(s.params + slot))[i] = w; break;
            case PROMPT_ID: atomicOr(s.prompt_bits + bits + w / 32, 1u << (w % 32)); break;
            case END_ID: atomicOr(s.end_bits + bits + w / 32, 1u << (w % 32)); break;
            case MASK: s.mask_bits[bits + i] = w; break;
            case GENERATED_ID: {
                // 16-bit counts: add to the half of the word that holds the token's.
                const size_t at = slot * s.vocab + w;
                atomicAdd((u32*)s.generated + at / 2, at % 2 ? 1u << 16 : 1u);
                break;
            }
            case BIAS: {
                // Pairs of id and value. A token may come twice: both values count.
                if (i % 2 == 0) atomicAdd(s.bias + slot * s.vocab + w, __uint_as_float(words[i + 1]));
                break;
            }
        }
    }
    if (h.kind == MASK && threadIdx.x == 0) s.mask_step[slot] = step;
}

// Forgets what earlier sequences of a slot left: one block a slot.
extern "C" __global__ void __launch_bounds__(256) clear_slots(const State s, const ChangeHead* heads) {
    const size_t slot = heads[blockIdx.x].slot;
    for (int i = threadIdx.x; i < s.mask_words; i += 256) {
        s.prompt_bits[slot * s.mask_words + i] = 0;
        s.end_bits[slot * s.mask_words + i] = 0;
    }
    for (int i = threadIdx.x; i < s.vocab; i += 256) {
        s.generated[slot * s.vocab + i] = 0;
        s.bias[slot * s.vocab + i] = 0.0f;
    }
}
