//! The sources, which are part of the library, and what is asked of the compiler.

/// A file of kernels that is compiled on its own.
pub struct Module {
    pub name: &'static str,
    /// The whole text: what is shared, then the file.
    pub source: &'static str,
}

macro_rules! module {
    ($name:literal) => {
        Module {
            name: $name,
            source: concat!(
                include_str!("../../kernels/common.cuh"),
                include_str!("../../kernels/state.cuh"),
                include_str!("../../kernels/rope.cuh"),
                include_str!(concat!("../../kernels/", $name, ".cu"))
            ),
        }
    };
}

pub const MODULES: [Module; 9] = [
    module!("linear"),
    module!("linear_sm90"),
    module!("gate_up_sm90"),
    module!("rows"),
    module!("attention_decode"),
    module!("attention_prefill"),
    module!("attention_prefill_sm90"),
    module!("state"),
    module!("sample"),
];

/// Kernels that each step spends its time in: none may spill registers.
pub const HOT: [&str; 59] = [
    "skinny8_norm",
    "skinny16_norm",
    "skinny8_norm_rope",
    "skinny16_norm_rope",
    "skinny8_norm_f32",
    "skinny16_norm_f32",
    "skinny8_norm_silu_mul",
    "skinny16_norm_silu_mul",
    "skinny8_add",
    "skinny16_add",
    "stream8_store_f32",
    "stream8_add",
    "stream8_silu_mul",
    "stream8_rope",
    "stream8_add_narrow",
    "stream8_add_deep",
    "stream8_rope_deep",
    "stream16_store_f32",
    "stream16_add",
    "stream16_silu_mul",
    "stream16_rope",
    "stream16_add_narrow",
    "stream16_add_deep",
    "stream16_rope_deep",
    "stream32_store_f32",
    "stream32_add",
    "stream32_silu_mul",
    "stream32_rope",
    "stream32_add_narrow",
    "stream32_add_deep",
    "stream32_rope_deep",
    "stream64_store_f32",
    "stream64_add",
    "stream64_silu_mul",
    "stream64_rope",
    "stream64_add_narrow",
    "stream64_add_deep",
    "stream64_rope_deep",
    "stream128_store_f32",
    "stream128_add",
    "stream128_silu_mul",
    "stream128_rope",
    "stream128_add_narrow",
    "stream128_add_deep",
    "stream128_rope_deep",
    "gate_up_tiles256",
    "gate_up_tiles224",
    "rms_norm",
    "silu_mul",
    "rope_write",
    "attention_decode_64",
    "attention_decode_128",
    "attention_ring_64",
    "attention_ring_128",
    "attention_prefill_64",
    "attention_prefill_128",
    "attention_prefill_sm90_64",
    "attention_prefill_sm90_128",
    "scan_logits",
];
