// What the device keeps of each slot, and the form in which the host sends changes. src/state mirrors these layouts.

struct SlotParams {
    float temperature, top_p, min_p, repetition;
    float presence, frequency;
    int top_k, logprobs;     // logprobs: -1 for none
    u32 min_tokens, flags;
    u64 seed;
    u64 reserved[2];
};

constexpr u32 HAS_PENALTIES = 1, HAS_BIAS = 2, HAS_END_IDS = 4;
constexpr int MAX_LOGPROBS = 32;

struct State {
    SlotParams* params;      // [slot]
    u32* last_token;         // [slot]
    int* tables;             // [slot][table_width]
    u16* generated;          // [slot][vocab]: how often a token was generated
    u32* prompt_bits;        // [slot][mask_words]
    u32* end_bits;           // [slot][mask_words]
    float* bias;             // [slot][vocab]
    u32* mask_bits;          // [slot][mask_words]
    u32* mask_step;          // [slot]: the step that the mask is for
    u32* step;               // [0] number of the step, [1] blocks that are done with it
    int table_width, vocab, mask_words, dummy_slot;
};

// A token of a row as the host reads it.
struct Choice {
    int token;               // -1: no logit was a number
    float logprob;
    int top_count, reserved;
    int top_id[MAX_LOGPROBS];
    float top_logprob[MAX_LOGPROBS];
};
