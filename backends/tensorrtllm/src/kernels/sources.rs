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

/// Kernels that each step spends its time in, beside all whose name begins with `stream`.
const HOT: [&str; 24] = [
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

/// Whether a kernel is one that steps spend their time in: none of these may spill registers.
pub fn is_hot(kernel: &str) -> bool {
    kernel.starts_with("stream") || HOT.contains(&kernel)
}
