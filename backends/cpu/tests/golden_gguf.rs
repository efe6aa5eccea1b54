//! GGUF files against the `gguf` package of Python, an independent reader (`golden/make_gguf.py`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use trireme_cpu::{KernelChoice, KvDtype, LlamaModel, LogitsWanted, Options};
use trireme_llm::checkpoint::{Checkpoint, WeightType};
use trireme_llm::plan::{self, PlanOptions};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

#[test]
fn blocks_of_every_type() {
    let bytes = std::fs::read(golden("blocks.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, ty) in TYPES {
        let tensor = |what: &str| file.tensor(&format!("{name}.{what}")).unwrap();
        let values: Vec<f32> =
            tensor("values").data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mut got = vec![0.0; values.len()];
        ty.dequantize(tensor("bytes").data(), &mut got);
        for (i, (got, value)) in got.iter().zip(&values).enumerate() {
            // A product and a sum may be rounded together or apart.
            assert!(
                (got - value).abs() <= 2e-6 * value.abs().max(8.0),
                "{name} element {i}: {got} for {value}"
            );
        }
    }
}

fn logits(path: &Path) -> Vec<f32> {
    let options = Options { kernels: KernelChoice::Reference, kv_dtype: KvDtype::F32, threads: 1 };
    let mut model = LlamaModel::load(&Checkpoint::open(path).unwrap(), options).unwrap();
    let mut cache = model.new_cache();
    let tokens: Vec<u32> = (0..30).map(|i| (i * 37 + 5) % 96).collect();
    model.forward(&mut cache, &tokens, LogitsWanted::All).unwrap().to_vec()
}

#[test]
fn gguf_safetensors_and_plan_agree() {
    // A plan refers to what lies near it.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("safetensors")).unwrap();
    for file in ["model.gguf", "safetensors/config.json", "safetensors/model.safetensors"] {
        std::fs::copy(golden(file), dir.path().join(file)).unwrap();
    }
    let plan = |from: &str, to: &str, by_reference| {
        let (from, to) = (dir.path().join(from), dir.path().join(to));
        plan::write(&from, &to, &PlanOptions { by_reference, ..PlanOptions::default() }).unwrap();
        logits(&to)
    };
    let gguf = logits(&golden("model.gguf"));
    assert_eq!(gguf, plan("model.gguf", "a.plan", false));
    assert_eq!(gguf, plan("model.gguf", "b.plan", true));
    let plain = logits(&golden("safetensors"));
    assert_eq!(plain, plan("safetensors", "c.plan", false));
    assert_eq!(plain, plan("safetensors", "d.plan", true));
    for (t, (a, b)) in gguf.chunks(96).zip(plain.chunks(96)).enumerate() {
        let top = b.iter().fold(0f32, |m, x| m.max(x.abs()));
        let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 1e-3 * top, "token {t}: {off} of {top}");
    }
}

/// By the names that the package has for them.
const TYPES: &[(&str, WeightType)] = &[
    ("Q8_0", WeightType::Q8_0),
    ("Q4_0", WeightType::Q4_0),
    ("Q4_1", WeightType::Q4_1),
    ("Q5_0", WeightType::Q5_0),
    ("Q4_K", WeightType::Q4K),
    ("Q6_K", WeightType::Q6K),
    ("F16", WeightType::F16),
    ("BF16", WeightType::BF16),
];
