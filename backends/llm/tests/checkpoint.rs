//! Folders: what is read, and what is said about the ones that cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use trireme_llm::checkpoint::{Architecture, Checkpoint, CheckpointError, Pooling};

fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 5000, "tie_word_embeddings": true,
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": null,
    })
}

type Shapes = BTreeMap<String, Vec<usize>>;

fn llama_shapes() -> Shapes {
    let layer = [
        ("input_layernorm", vec![8]),
        ("self_attn.q_proj", vec![8, 8]),
        ("self_attn.k_proj", vec![4, 8]),
        ("self_attn.v_proj", vec![4, 8]),
        ("self_attn.o_proj", vec![8, 8]),
        ("post_attention_layernorm", vec![8]),
        ("mlp.gate_proj", vec![12, 8]),
        ("mlp.up_proj", vec![12, 8]),
        ("mlp.down_proj", vec![8, 12]),
    ];
    let layer = layer.map(|(name, shape)| (format!("model.layers.0.{name}.weight"), shape));
    let outer = [("model.embed_tokens.weight".into(), vec![10, 8]), ("model.norm.weight".into(), vec![8])];
    layer.into_iter().chain(outer).collect()
}

/// BF16 tensors that count up, as a safetensors file.
fn file(shapes: &Shapes) -> Vec<u8> {
    let data: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let view = |shape: &Vec<usize>| {
        TensorView::new(Dtype::BF16, shape.clone(), &data[..2 * shape.iter().product::<usize>()]).unwrap()
    };
    serialize(shapes.iter().map(|(name, shape)| (name, view(shape))), None).unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn open(config: &Value, shapes: &Shapes) -> Result<Checkpoint, CheckpointError> {
    let dir = folder(&[("config.json", config.to_string().as_bytes()), ("model.safetensors", &file(shapes))]);
    Checkpoint::open(dir.path())
}

/// The error without the folder's name.
#[track_caller]
fn refused(result: Result<Checkpoint, CheckpointError>, expected: Expect) {
    expected.assert_eq(&result.expect_err("it should be refused").kind.to_string());
}

fn with(key: &str, value: Value) -> Value {
    let mut config = llama_config();
    config[key] = value;
    config
}

#[test]
fn a_llama_folder_is_read() {
    let checkpoint = open(&llama_config(), &llama_shapes()).unwrap();
    expect![[r#"
        Decoder(
            DecoderConfig {
                vocab_size: 10,
                hidden_size: 8,
                intermediate_size: 12,
                num_layers: 1,
                num_heads: 4,
                num_kv_heads: 2,
                head_dim: 2,
                rope_theta: 5000.0,
                rope_scaling: None,
                rms_norm_eps: 1e-5,
                max_position_embeddings: 32,
                sliding_window: None,
                first_window_layer: 0,
                qkv_bias: false,
                output_bias: false,
                mlp_bias: false,
                qk_norm: false,
                tie_word_embeddings: true,
                bos_token_id: Some(
                    1,
                ),
                eos_token_ids: [
                    2,
                    3,
                ],
                pad_token_id: None,
            },
        )
    "#]]
    .assert_debug_eq(&checkpoint.architecture);
    assert_eq!(checkpoint.weight("model.norm.weight").unwrap().bytes().len(), 16);
}

#[test]
fn shards_are_read_by_their_index() {
    let (mut first, second) = (llama_shapes(), Shapes::from([("model.norm.weight".into(), vec![8])]));
    first.remove("model.norm.weight");
    let index = json!({"weight_map": {"model.norm.weight": "b.safetensors", "model.embed_tokens.weight": "a.safetensors"}});
    let config = llama_config().to_string();
    let (a, b) = (file(&first), file(&second));
    let index = index.to_string();
    let mut files = vec![
        ("config.json", config.as_bytes()),
        ("model.safetensors.index.json", index.as_bytes()),
        ("a.safetensors", a.as_slice()),
        ("b.safetensors", b.as_slice()),
    ];
    let checkpoint = Checkpoint::open(folder(&files).path()).unwrap();
    assert_eq!(checkpoint.weights().count(), 11);
    files.pop();
    refused(
        Checkpoint::open(folder(&files).path()),
        expect![
            "is not a checkpoint: 1 of its 2 files of weights are not there, the first is b.safetensors; fetch them again"
        ],
    );
    let out = json!({"weight_map": {"model.norm.weight": "../b.safetensors"}}).to_string();
    files[1].1 = out.as_bytes();
    refused(
        Checkpoint::open(folder(&files).path()),
        expect!["is malformed: the path '../b.safetensors' leads out of the folder"],
    );
}

/// What a download or a clone may leave, and what is near a checkpoint without being one.
#[test]
fn what_is_in_the_place_of_weights_is_said() {
    let config = llama_config().to_string();
    let with = |name, bytes: &[u8]| {
        Checkpoint::open(folder(&[("config.json", config.as_bytes()), (name, bytes)]).path())
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (name, bytes, said) in [
        ("x", &b""[..], "no *.safetensors"),
        ("model.safetensors.incomplete", b"x", "model.safetensors.incomplete: its download is not complete"),
        ("pytorch_model.bin", b"x", "pytorch_model.bin, which can run code"),
        ("x.gguf", b"x", "x.gguf: give that file"),
        ("model.safetensors", pointer, "git lfs pull"),
        ("config.json", pointer, "git lfs pull"),
    ] {
        let error = with(name, bytes).expect_err(name).to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
    let adapter = folder(&[("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"x")]);
    refused(
        Checkpoint::open(adapter.path()),
        expect!["is not a checkpoint: it is an adapter (adapter_config.json): merge it into its model first"],
    );
    let sentencepiece = folder(&[
        ("config.json", config.as_bytes()),
        ("model.safetensors", &file(&llama_shapes())),
        ("tokenizer.model", b"x"),
    ]);
    let error = Checkpoint::open(sentencepiece.path()).unwrap().tokenizer().err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: is missing; tokenizer.model alone is not read"), "{error}");
}

/// A link by its full path is followed, so that an error names what somebody has given; others stay as they are.
#[test]
fn errors_name_what_was_linked() {
    let target = folder(&[("config.json", b"{")]);
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("1");
    std::os::unix::fs::symlink(target.path(), &link).unwrap();
    assert_eq!(Checkpoint::open(&link).unwrap_err().path, target.path().join("config.json"));
    fs::create_dir(dir.path().join("2")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let blob = dir.path().join("2/model.gguf");
    std::os::unix::fs::symlink(dir.path().join("file"), &blob).unwrap();
    assert_eq!(Checkpoint::open(&dir.path().join("2")).unwrap_err().path, blob);
}

#[test]
fn what_is_not_supported_is_said() {
    let shapes = llama_shapes();
    let scaling = json!({"rope_type": "llama3", "factor": 8.0});
    refused(
        open(&with("rope_scaling", scaling), &shapes),
        expect!["is malformed: 'rope_scaling.low_freq_factor' is missing, 'llama3' needs it"],
    );
    let longrope = json!({"type": "longrope", "factor": 2.0});
    refused(
        open(&with("rope_scaling", longrope), &shapes),
        expect!["rope scaling 'longrope' is not supported yet"],
    );
    refused(
        open(&with("attention_bias", json!(true)), &shapes),
        expect!["has no tensor 'model.layers.0.self_attn.q_proj.bias'"],
    );
    refused(
        open(&with("hidden_act", json!("relu")), &shapes),
        expect!["hidden_act 'relu' is not supported yet"],
    );
    refused(
        open(&with("architectures", json!(["MambaForCausalLM"])), &shapes),
        expect![
            "architecture 'MambaForCausalLM' is not known; known are: BertModel, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"
        ],
    );
    refused(
        open(&with("quantization_config", json!({"quant_method": "gptq", "bits": 4})), &shapes),
        expect![
            "quantization_config with quant_method 'gptq' (F32, F16 and BF16 weights are read, and GGUF's quantised ones) is not supported yet"
        ],
    );
    let partial = || expect!["a 'partial_rotary_factor' other than 1 is not supported yet"];
    refused(open(&with("partial_rotary_factor", json!(0.5)), &shapes), partial());
    refused(open(&with("rope_parameters", json!({"partial_rotary_factor": 0.5})), &shapes), partial());
    open(&with("partial_rotary_factor", json!(1.0)), &shapes).unwrap();
    let parameters = json!({"rope_type": "default", "rope_theta": 7000.0});
    let mut config = with("rope_parameters", parameters);
    config.as_object_mut().unwrap().remove("rope_theta");
    let Architecture::Decoder(c) = open(&config, &shapes).unwrap().architecture else { panic!() };
    assert_eq!(c.rope_theta, 7000.0);
}

#[test]
fn false_configurations_are_refused() {
    let shapes = llama_shapes();
    refused(
        open(&with("hidden_size", json!(0)), &shapes),
        expect!["is malformed: 'hidden_size' is 0, it must be from 1 to 2147483648"],
    );
    refused(
        open(&with("hidden_size", json!("8")), &shapes),
        expect![[r#"is malformed: 'hidden_size' in config.json is "8", it must be a whole number"#]],
    );
    refused(
        open(&with("num_hidden_layers", json!(2_000_000_000)), &shapes),
        expect!["has no tensor 'model.layers.1.input_layernorm.weight'"],
    );
    refused(
        open(&with("num_key_value_heads", json!(3)), &shapes),
        expect!["is malformed: 4 heads cannot be shared out among 3 key-value heads"],
    );
    refused(
        open(&with("eos_token_id", json!(10)), &shapes),
        expect!["is malformed: token id 10 is outside the vocabulary of 10"],
    );
    refused(
        open(&with("tie_word_embeddings", json!(false)), &shapes),
        expect!["has no tensor 'lm_head.weight'"],
    );
    refused(
        open(&with("intermediate_size", json!(16)), &shapes),
        expect![
            "tensor 'model.layers.0.mlp.gate_proj.weight' has shape [12, 8], the configuration asks for [16, 8]"
        ],
    );
    refused(
        open(&with("max_position_embeddings", json!(2_000_000_000)), &shapes),
        expect!["is malformed: a context of 2000000000 tokens is over the limit of 16777216"],
    );
}

/// `layer_types` says layer by layer which of them have the window.
#[test]
fn layer_types_are_read() {
    let (full, sliding) = ("full_attention", "sliding_attention");
    let mut shapes = llama_shapes();
    for (name, shape) in llama_shapes() {
        for layer in 1..4 {
            shapes.insert(name.replace("layers.0", &format!("layers.{layer}")), shape.clone());
        }
    }
    for name in ["q", "k", "v"] {
        for layer in 0..4 {
            let rows = if name == "q" { 8 } else { 4 };
            shapes.insert(format!("model.layers.{layer}.self_attn.{name}_proj.bias"), vec![rows]);
        }
    }
    let config = |family: &str, types: Value, window: Value, used: bool| {
        let mut config = with("architectures", json!([format!("{family}ForCausalLM")]));
        config["num_hidden_layers"] = json!(4);
        config["layer_types"] = types;
        config["sliding_window"] = window;
        config["use_sliding_window"] = json!(used);
        config
    };
    let windows = |config: Value| -> Vec<Option<usize>> {
        let Architecture::Decoder(c) = open(&config, &shapes).unwrap().architecture else { panic!() };
        (0..4).map(|layer| c.window(layer)).collect()
    };
    let types = json!([full, full, sliding, sliding]);
    assert_eq!(windows(config("Qwen2", types.clone(), json!(7), true)), [None, None, Some(7), Some(7)]);
    assert_eq!(windows(config("Qwen2", json!([full, full, full, full]), json!(7), true)), [None; 4]);
    assert_eq!(windows(config("Qwen2", json!([full, full, full, full]), json!(7), false)), [None; 4]);
    assert_eq!(windows(config("Mistral", types.clone(), json!(7), false)), [None, None, Some(7), Some(7)]);
    assert_eq!(windows(config("Llama", json!([full, full, full, full]), Value::Null, false)), [None; 4]);
    let said = |config: Value, expected| refused(open(&config, &shapes), expected);
    said(
        config("Qwen2", types.clone(), json!(7), false),
        expect!["is malformed: 'layer_types' has sliding windows, but no 'sliding_window' is in force"],
    );
    said(
        config("Llama", types, Value::Null, false),
        expect!["is malformed: 'layer_types' has sliding windows, but no 'sliding_window' is in force"],
    );
    said(
        config("Mistral", json!([full, full, full, full]), json!(7), false),
        expect!["is malformed: 'sliding_window' is in force, but 'layer_types' has none"],
    );
    said(
        config("Qwen2", json!([sliding, full, sliding, full]), json!(7), true),
        expect!["'layer_types' with full attention behind a sliding window is not supported yet"],
    );
    said(
        config("Llama", json!([full, full, "chunked_attention", full]), Value::Null, false),
        expect!["layer type 'chunked_attention' of config.json is not supported yet"],
    );
    said(
        config("Llama", json!([full]), Value::Null, false),
        expect!["is malformed: 'layer_types' in config.json is no list of 4 words, one a layer"],
    );
}

#[test]
fn folders_that_are_none_are_refused() {
    refused(
        Checkpoint::open(folder(&[]).path()),
        expect!["is not a checkpoint: it holds no config.json, no .gguf file and no model.plan"],
    );
    refused(
        Checkpoint::open(folder(&[("a.gguf", b"x"), ("b.gguf", b"x")]).path()),
        expect!["is not a checkpoint: it holds several .gguf files (a.gguf, b.gguf); name one of them"],
    );
    let config = llama_config().to_string();
    refused(
        Checkpoint::open(folder(&[("config.json", config.as_bytes())]).path()),
        expect!["is not a checkpoint: it has a config.json but no *.safetensors"],
    );
    refused(
        Checkpoint::open(folder(&[("config.json", b"{\"a\": }")]).path()),
        expect!["is malformed: expected value at line 1 column 7"],
    );
    let err = Checkpoint::open(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(err.starts_with("/nowhere/at/all: cannot be read: "), "{err}");
}

#[test]
fn a_cut_gguf_names_the_tensor_and_the_bytes() {
    let whole = common::model_file(common::SMOLLM2_GGUF);
    let mut bytes = fs::read(&whole).unwrap();
    bytes.truncate(bytes.len() - 1000);
    let dir = folder(&[("model.gguf", &bytes)]);
    let err = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(err.contains("model.gguf: is cut off: tensor '"), "{err}");
    assert!(err.contains(" misses its last "), "{err}");
    bytes.truncate(100_000);
    let err = Checkpoint::open(folder(&[("model.gguf", &bytes)]).path()).unwrap_err().to_string();
    assert!(err.contains("is malformed: ") && err.contains(" are claimed at byte "), "{err}");
}

#[test]
fn a_folder_with_one_gguf_is_that_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    std::os::unix::fs::symlink(common::model_file(common::SMOLLM2_GGUF), &file).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.source, file);
}

#[test]
fn chat_templates_of_folders() {
    let (config, weights) = (llama_config().to_string(), file(&llama_shapes()));
    let base = [("config.json", config.as_bytes()), ("model.safetensors", weights.as_slice())];
    let template = |extra: &[(&str, &[u8])]| {
        Checkpoint::open(folder(&[&base, extra].concat()).path()).unwrap().chat_template()
    };
    assert_eq!(template(&[]), None);
    let tokens = br#"{"chat_template": "inline", "bos_token": "<s>", "eos_token": {"content": "</s>"}}"#;
    let found = template(&[("tokenizer_config.json", tokens)]).unwrap();
    assert_eq!(found.text, "inline");
    assert_eq!((found.bos_token.as_deref(), found.eos_token.as_deref()), (Some("<s>"), Some("</s>")));
    let found = template(&[("tokenizer_config.json", tokens), ("chat_template.jinja", b"file")]).unwrap();
    assert_eq!((found.text.as_str(), found.bos_token.as_deref()), ("file", Some("<s>")));
    let list = br#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(template(&[("tokenizer_config.json", list)]).unwrap().text, "d");
}

#[test]
fn bert_names_may_have_their_prefix() {
    let config = json!({
        "architectures": ["BertModel"], "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    });
    let mut shapes = Shapes::new();
    for (name, shape) in [
        ("embeddings.word_embeddings", vec![10, 4]),
        ("embeddings.position_embeddings", vec![8, 4]),
        ("embeddings.token_type_embeddings", vec![2, 4]),
    ] {
        shapes.insert(format!("bert.{name}.weight"), shape);
    }
    shapes.insert("bert.embeddings.LayerNorm.weight".into(), vec![4]);
    shapes.insert("bert.embeddings.LayerNorm.bias".into(), vec![4]);
    for (name, rows, cols) in [
        ("attention.self.query", 4, 4),
        ("attention.self.key", 4, 4),
        ("attention.self.value", 4, 4),
        ("attention.output.dense", 4, 4),
        ("intermediate.dense", 6, 4),
        ("output.dense", 4, 6),
    ] {
        shapes.insert(format!("bert.encoder.layer.0.{name}.weight"), vec![rows, cols]);
        shapes.insert(format!("bert.encoder.layer.0.{name}.bias"), vec![rows]);
    }
    for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
        shapes.insert(format!("bert.encoder.layer.0.{name}.weight"), vec![4]);
        shapes.insert(format!("bert.encoder.layer.0.{name}.bias"), vec![4]);
    }
    let checkpoint = open(&config, &shapes).unwrap();
    assert!(checkpoint.weight("encoder.layer.0.attention.self.query.weight").is_ok());
    let Architecture::Bert(c) = &checkpoint.architecture else { panic!() };
    assert_eq!((c.pooling, c.normalize), (Pooling::Mean, false), "no modules.json");
    shapes.remove("bert.encoder.layer.0.output.dense.bias");
    refused(open(&config, &shapes), expect!["has no tensor 'encoder.layer.0.output.dense.bias'"]);
}

proptest! {
    /// Any value in any place of the configuration is read or refused, without a panic and without long work.
    #[test]
    fn any_configuration_is_answered(key in 0usize..15, value in prop_oneof![
        any::<i64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n)), any::<bool>().prop_map(|b| json!(b)),
        Just(json!(u64::MAX)), Just(json!(1u64 << 31)), Just(json!([])), Just(json!({"a": 1})), Just(Value::Null),
        (0u64..40).prop_map(|n| json!(n)),
    ]) {
        let mut config = llama_config();
        let key = config.as_object().unwrap().keys().nth(key % config.as_object().unwrap().len()).unwrap().clone();
        config[&key] = value;
        let _ = open(&config, &llama_shapes());
    }
}

/// The page names every architecture that can be read.
#[test]
fn the_page_lists_the_architectures() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checkpoints.md");
    let page = fs::read_to_string(page).unwrap();
    let error = open(&with("architectures", json!(["None"])), &llama_shapes()).unwrap_err().kind.to_string();
    let (_, known) = error.split_once("known are: ").unwrap();
    let mut rows: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    rows.retain(|name| name.ends_with("Model") || name.ends_with("ForCausalLM"));
    assert_eq!(rows.join(", "), known);
}
