//! Small random Llama checkpoints as Hugging Face folders.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use trireme_llm::checkpoint::Checkpoint;

/// A checkpoint's shape.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vocab: usize,
    pub hidden: usize,
    pub inter: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub tied: bool,
    /// `F32`, `F16` or `BF16`.
    pub dtype: &'static str,
}

/// GQA 3:1, an untied head whose rows are no multiple of sixteen.
pub const UNTIED: Shape = Shape {
    vocab: 101,
    hidden: 96,
    inter: 160,
    layers: 2,
    heads: 6,
    kv_heads: 2,
    head_dim: 32,
    tied: false,
    dtype: "BF16",
};

/// Weights by name, as the file has them after rounding.
pub type Weights = BTreeMap<String, Vec<f32>>;

/// Writes the folder and gives the weights that are in it.
pub fn write(dir: &Path, s: Shape, seed: u64) -> Weights {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![s.vocab, s.hidden]),
        ("model.norm.weight".to_owned(), vec![s.hidden]),
    ];
    if !s.tied {
        tensors.push(("lm_head.weight".to_owned(), vec![s.vocab, s.hidden]));
    }
    let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    for i in 0..s.layers {
        for (name, shape) in [
            ("input_layernorm", vec![s.hidden]),
            ("post_attention_layernorm", vec![s.hidden]),
            ("self_attn.q_proj", vec![q, s.hidden]),
            ("self_attn.k_proj", vec![kv, s.hidden]),
            ("self_attn.v_proj", vec![kv, s.hidden]),
            ("self_attn.o_proj", vec![s.hidden, q]),
            ("mlp.gate_proj", vec![s.inter, s.hidden]),
            ("mlp.up_proj", vec![s.inter, s.hidden]),
            ("mlp.down_proj", vec![s.hidden, s.inter]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let mut state = seed;
    let mut random = || {
        // SplitMix64; the sum of four uniforms is bell-shaped enough.
        let mut sum = 0.0f32;
        for _ in 0..4 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            sum += ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        sum
    };
    let (mut weights, mut data, mut header) = (Weights::new(), Vec::new(), Vec::new());
    for (name, shape) in tensors {
        let n: usize = shape.iter().product();
        let begin = data.len();
        let values: Vec<f32> = (0..n)
            .map(|_| {
                let x = if shape.len() == 1 { 1.0 + 0.1 * random() } else { random() * 0.2 };
                match s.dtype {
                    "F16" => {
                        data.extend(f16::from_f32(x).to_le_bytes());
                        f16::from_f32(x).to_f32()
                    }
                    "BF16" => {
                        data.extend(bf16::from_f32(x).to_le_bytes());
                        bf16::from_f32(x).to_f32()
                    }
                    _ => {
                        data.extend(x.to_le_bytes());
                        x
                    }
                }
            })
            .collect();
        header.push(format!(
            r#""{name}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            s.dtype,
            data.len()
        ));
        weights.insert(name, values);
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    let config = format!(
        r#"{{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","vocab_size":{},"hidden_size":{},
        "intermediate_size":{},"num_hidden_layers":{},"num_attention_heads":{},"num_key_value_heads":{},"head_dim":{},
        "max_position_embeddings":1024,"rms_norm_eps":1e-5,"rope_theta":10000.0,"tie_word_embeddings":{}}}"#,
        s.vocab, s.hidden, s.inter, s.layers, s.heads, s.kv_heads, s.head_dim, s.tied
    );
    std::fs::write(dir.join("config.json"), config).unwrap();
    weights
}

/// Writes and opens one. The folder must outlive it.
pub fn open(dir: &Path, shape: Shape, seed: u64) -> (Checkpoint, Weights) {
    let weights = write(dir, shape, seed);
    (Checkpoint::open(dir).unwrap(), weights)
}
