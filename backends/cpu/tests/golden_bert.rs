//! all-MiniLM-L6-v2 against golden values of an independent `f32` implementation (given to four places).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use trireme_cpu::{BertModel, KernelChoice, Options};
use trireme_llm::checkpoint::Checkpoint;

const TOLERANCE: f32 = 1e-4;

#[test]
fn vectors_and_cosines() {
    let folder = support::minilm();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let texts: Vec<Vec<u32>> = [
        "A man is eating food.",
        "A man is eating a piece of bread.",
        "The girl is carrying a baby.",
        "The stock market fell sharply today.",
    ]
    .iter()
    .map(|t| tokenizer.encode(t, true).unwrap())
    .collect();
    assert_eq!(texts[0], [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]);
    for kernels in [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512] {
        let Ok(mut model) = BertModel::load(&checkpoint, Options { kernels, ..Options::default() }) else {
            continue;
        };
        let vectors = model.embed(&texts).unwrap();
        for (got, golden) in vectors[0].iter().zip([0.0332, 0.0044, -0.0063, 0.0484, -0.1387, -0.0336]) {
            assert!((got - golden).abs() < TOLERANCE, "{kernels:?}: {got} for {golden}");
        }
        for (vector, golden) in vectors[1..].iter().zip([0.7553, -0.1050, 0.0037]) {
            let cosine: f32 = vectors[0].iter().zip(vector).map(|(a, b)| a * b).sum();
            assert!((cosine - golden).abs() < TOLERANCE, "{kernels:?}: {cosine} for {golden}");
        }
        for (text, vector) in texts.iter().zip(&vectors) {
            assert_eq!(model.embed(std::slice::from_ref(text)).unwrap()[0], *vector, "{kernels:?}: alone");
        }
    }
}
