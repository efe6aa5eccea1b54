//! The parameters of this engine, beside those of every engine.

use trireme_llm::params::{Parameter, ParameterKind, Parameters};

use crate::kv::KvDtype;

/// What this backend understands in `config.pbtxt` beside [`trireme_llm::params::PARAMETERS`].
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "threads",
        kind: ParameterKind::Count,
        default: "",
        doc: "Threads that compute, shared by the model's instances; all that the process may use if not given.",
    },
    Parameter {
        name: "kv_cache_dtype",
        kind: ParameterKind::Choice(&["auto", "fp16", "fp32"]),
        default: "auto",
        doc: "Element type of the KV cache; `auto` is `fp16`.",
    },
];

pub(super) fn kv_dtype(params: &Parameters) -> KvDtype {
    match params.text("kv_cache_dtype") {
        Some("fp32") => KvDtype::F32,
        _ => KvDtype::F16,
    }
}
