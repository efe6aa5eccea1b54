//! Small random checkpoints of every architecture against transformers (`golden/make.py`): logits and vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use trireme_cpu::{BertModel, KernelChoice, KvDtype, LlamaModel, LogitsWanted, Options};
use trireme_llm::checkpoint::Checkpoint;

/// `max |delta| / max |logit|` of a position.
const FP32: f32 = 1e-4;
const BF16: f32 = 1e-2;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The tokens and the tensor of this name.
fn read(folder: &Path, tensor: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words =
        |name: &str| -> Vec<[u8; 4]> { file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec() };
    let tokens = words("tokens").into_iter().map(u32::from_le_bytes).collect();
    (tokens, words(tensor).into_iter().map(f32::from_le_bytes).collect())
}

/// The same checkpoint with its weights written out as F32.
fn widened(folder: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), dir.path().join("config.json")).unwrap();
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let wide: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, t)| {
            assert_eq!(t.dtype(), Dtype::BF16, "{name}");
            let data = t.data().as_chunks::<2>().0.iter().flat_map(|b| [0, 0, b[0], b[1]]).collect();
            (name, t.shape().to_vec(), data)
        })
        .collect();
    let views = wide.iter().map(|(n, s, d)| (n, TensorView::new(Dtype::F32, s.clone(), d).unwrap()));
    std::fs::write(dir.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    dir
}

/// The largest relative error over all positions.
fn error(got: &[f32], golden: &[f32], width: usize) -> f32 {
    assert_eq!(got.len(), golden.len());
    let position = |(got, golden): (&[f32], &[f32])| {
        let top = golden.iter().fold(0f32, |m, x| m.max(x.abs()));
        got.iter().zip(golden).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top
    };
    got.chunks(width).zip(golden.chunks(width)).map(position).fold(0.0, f32::max)
}

fn logits(checkpoint: &Checkpoint, kernels: KernelChoice, tokens: &[u32]) -> Option<Vec<f32>> {
    let options = Options { kernels, kv_dtype: KvDtype::F32, threads: 2 };
    let mut model = LlamaModel::load(checkpoint, options).ok()?;
    let mut cache = model.new_cache();
    // In pieces: a cut must not matter.
    let mut all = Vec::new();
    for piece in [&tokens[..13], &tokens[13..14], &tokens[14..]] {
        all.extend_from_slice(model.forward(&mut cache, piece, LogitsWanted::All).unwrap());
    }
    Some(all)
}

fn check_decoder(name: &str) {
    let folder = golden(name);
    let wide = widened(&folder);
    let (tokens, fp32) = read(&folder, "fp32");
    let (_, bf16) = read(&folder, "bf16");
    let width = fp32.len() / tokens.len();
    let mut ran = 0;
    for kernels in [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512] {
        let checkpoint = Checkpoint::open(wide.path()).unwrap();
        let Some(got) = logits(&checkpoint, kernels, &tokens) else { continue };
        let e = error(&got, &fp32, width);
        assert!(e <= FP32, "{name}, F32 weights, {kernels:?}: {e:e}");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let got = logits(&checkpoint, kernels, &tokens).unwrap();
        let e16 = error(&got, &bf16, width);
        assert!(e16 <= BF16, "{name}, BF16 weights, {kernels:?}: {e16:e}");
        eprintln!("{name} {kernels:?}: fp32 {e:.1e}, bf16 {e16:.1e}");
        ran += 1;
    }
    assert!(ran > 0, "the reference kernels run everywhere");
}

macro_rules! decoders {
    ($($test:ident $folder:literal),* $(,)?) => {
        $(#[test] fn $test() { check_decoder($folder); })*
        const DECODERS: &[&str] = &[$($folder),*];
    };
}

decoders! {
    llama "llama",
    llama_with_biases "llama-bias",
    llama_linear "llama-linear",
    llama_dynamic "llama-dynamic",
    llama_yarn "llama-yarn",
    llama_llama3 "llama-llama3",
    mistral_with_a_window "mistral",
    qwen2_with_a_window_in_one_layer "qwen2",
    qwen3 "qwen3",
}

const ENCODERS: &[&str] = &["bert-mean", "bert-cls", "bert-max", "bert-sqrt", "bert-weighted", "bert-last"];

#[test]
fn bert_with_every_pooling() {
    for name in ENCODERS {
        let folder = golden(name);
        let (tokens, vector) = read(&folder, "embedding");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let mut model = BertModel::load(&checkpoint, Options { threads: 1, ..Options::default() }).unwrap();
        assert_eq!(model.config().max_tokens, 32, "sentence_bert_config.json says less");
        let got = model.embed(&[tokens]).unwrap();
        let e = error(&got[0], &vector, vector.len());
        assert!(e <= BF16, "{name}: {e:e}");
        let wide = widened(&folder);
        for file in ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"] {
            let to = wide.path().join(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(folder.join(file), to).unwrap();
        }
        let checkpoint = Checkpoint::open(wide.path()).unwrap();
        let mut model = BertModel::load(&checkpoint, Options { threads: 1, ..Options::default() }).unwrap();
        let (tokens, _) = read(&folder, "embedding");
        let e = error(&model.embed(&[tokens]).unwrap()[0], &vector, vector.len());
        assert!(e <= FP32, "{name}, F32 weights: {e:e}");
    }
}

#[test]
fn no_folder_is_left_out() {
    let folders: BTreeSet<String> = std::fs::read_dir(golden(""))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().join("golden.safetensors").is_file())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    let tested: BTreeSet<String> = DECODERS.iter().chain(ENCODERS).map(|s| (*s).to_owned()).collect();
    assert_eq!(folders, tested);
}

/// Of any shape that a configuration states, weights can be made up.
#[test]
fn every_architecture_runs_without_weights() {
    let dummy = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"] {
            if let Ok(bytes) = std::fs::read(golden(name).join(file)) {
                let to = dir.path().join(file);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::write(to, bytes).unwrap();
            }
        }
        Checkpoint::open_as(dir.path(), Some("dummy")).unwrap()
    };
    let real =
        |values: &[f32]| values.iter().all(|x| x.is_finite()) && values.iter().any(|x| *x != values[0]);
    for name in DECODERS {
        let (tokens, golden) = read(&golden(name), "fp32");
        let got = logits(&dummy(name), KernelChoice::Reference, &tokens).unwrap();
        assert!(got.len() == golden.len() && real(&got), "{name}");
    }
    for name in ENCODERS {
        let (tokens, golden) = read(&golden(name), "embedding");
        let options = Options { threads: 1, ..Options::default() };
        let got = BertModel::load(&dummy(name), options).unwrap().embed(&[tokens]).unwrap();
        assert!(got[0].len() == golden.len() && real(&got[0]), "{name}");
    }
}

/// The tolerance is narrow enough to notice each feature: a configuration that leaves it out is far off.
#[test]
fn a_feature_left_out_is_noticed() {
    for (name, key, value) in [
        ("llama-linear", "rope_parameters", "null"),
        ("llama-yarn", "rope_parameters", "null"),
        ("llama-llama3", "rope_parameters", "null"),
        ("llama-dynamic", "rope_parameters", "null"),
        ("llama-bias", "attention_bias", "false"),
        ("mistral", "sliding_window", "null"),
        ("qwen2", "use_sliding_window", "false"),
        // A Llama is a Qwen 3 without the norms of q and k.
        ("qwen3", "architectures", "[\"LlamaForCausalLM\"]"),
    ] {
        let dir = widened(&golden(name));
        let path = dir.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = serde_json::from_str(value).unwrap();
        if key.contains("sliding_window") {
            // Which layers have a window is no feature of its own: without a window the list is refused.
            config.as_object_mut().unwrap().remove("layer_types");
        }
        if name == "llama-dynamic" {
            config["max_position_embeddings"] = 48.into();
        }
        std::fs::write(&path, config.to_string()).unwrap();
        let (tokens, fp32) = read(&golden(name), "fp32");
        let got = logits(&Checkpoint::open(dir.path()).unwrap(), KernelChoice::Reference, &tokens).unwrap();
        let e = error(&got, &fp32, fp32.len() / tokens.len());
        assert!(e > 10.0 * FP32, "{name} without {key}: {e:e}");
    }
}
