//! The parameters of this engine, beside those of every engine.

use trireme_llm::params::{Parameter, ParameterKind};

/// What this backend understands in `config.pbtxt` beside [`trireme_llm::params::PARAMETERS`].
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "use_cuda_graph",
        kind: ParameterKind::Flag,
        default: "",
        doc: "Whether decode steps run as CUDA graphs; `true` if neither this, `cuda_graph_mode`, `optimization { cuda { graphs } }` nor the command line says otherwise. Where several are given, they must agree.",
    },
    Parameter {
        name: "cuda_graph_mode",
        kind: ParameterKind::Flag,
        default: "",
        doc: "TensorRT-LLM's name of `use_cuda_graph`.",
    },
    Parameter {
        name: "cuda_graph_cache_size",
        kind: ParameterKind::Count,
        default: "",
        doc: "Graphs that are kept at most; steps of further sizes are launched kernel by kernel.",
    },
    Parameter {
        name: "deterministic",
        kind: ParameterKind::Flag,
        default: "false",
        doc: "Whether an answer is the same to the last bit whatever else runs. Products then go through the kernels for few rows, 16 at a time: prompts and large batches take several times as long.",
    },
    Parameter {
        name: "fusion",
        kind: ParameterKind::Flag,
        default: "true",
        doc: "Whether norms and activations are computed inside of the products beside them, where a kernel can. `false` is for comparison.",
    },
    Parameter {
        name: "kv_cache_dtype",
        kind: ParameterKind::Choice(&["auto", "bf16"]),
        default: "auto",
        doc: "Element type of the KV cache; `auto` is `bf16`.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_llm::params::to_markdown;

    #[test]
    fn the_documentation_has_the_table() {
        let page = include_str!("../../../../docs/cuda.md");
        assert!(page.contains(&to_markdown(PARAMETERS)), "docs/cuda.md needs:\n{}", to_markdown(PARAMETERS));
    }
}
