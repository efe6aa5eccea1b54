//! A row's logits are the same to the last bit whatever the rows beside it, the split of the prompt and the threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use proptest::prelude::*;
use support::checkpoints::{self, Shape, UNTIED};
use trireme_cpu::{EngineError, KernelChoice, KvCache, LlamaModel, LogitsWanted, Options, Segment};
use trireme_llm::checkpoint::Checkpoint;

const KERNELS: [KernelChoice; 3] = [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512];

fn load(checkpoint: &Checkpoint, kernels: KernelChoice, threads: usize) -> Option<LlamaModel> {
    LlamaModel::load(checkpoint, Options { kernels, threads, ..Options::default() }).ok()
}

/// Logits of each token, one token at a time, on one thread.
fn one_by_one(checkpoint: &Checkpoint, kernels: KernelChoice, tokens: &[u32]) -> Option<Vec<Vec<f32>>> {
    let mut model = load(checkpoint, kernels, 1)?;
    let mut cache = model.new_cache();
    Some(
        tokens
            .iter()
            .map(|t| model.forward(&mut cache, &[*t], LogitsWanted::Last).unwrap().to_vec())
            .collect(),
    )
}

fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 37 + seed * 11 + i * i) % vocab) as u32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A sequence of up to 330 tokens (two attention blocks), cut anywhere, beside other sequences in each step.
    #[test]
    fn batches_splits_and_threads(
        length in 1usize..=330,
        cuts in prop::collection::vec(1usize..=65, 1..12),
        others in prop::collection::vec(1usize..=20, 0..4),
        threads in 1usize..=4,
        dtype in prop::sample::select(vec!["F32", "F16", "BF16"]),
        kernels in prop::sample::select(KERNELS.to_vec()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoint, _) = checkpoints::open(dir.path(), Shape { dtype, ..UNTIED }, 3);
        let tokens = tokens(length, 101, 1);
        let Some(alone) = one_by_one(&checkpoint, kernels, &tokens) else { return Ok(()) };
        let mut model = load(&checkpoint, kernels, threads).unwrap();
        let (mut cache, mut at, mut cut) = (model.new_cache(), 0, cuts.iter().cycle());
        while at < length {
            let n = (*cut.next().unwrap()).min(length - at);
            let noise: Vec<Vec<u32>> = others.iter().map(|n| self::tokens(*n, 101, 9)).collect();
            let mut caches: Vec<KvCache> = noise.iter().map(|_| model.new_cache()).collect();
            let mut segments: Vec<Segment<'_>> = caches
                .iter_mut()
                .zip(&noise)
                .map(|(cache, tokens)| Segment { cache, tokens, logits: LogitsWanted::None })
                .collect();
            let place = segments.len() / 2;
            let ours = Segment { cache: &mut cache, tokens: &tokens[at..at + n], logits: LogitsWanted::All };
            segments.insert(place, ours);
            let logits = model.step(&mut segments).unwrap();
            for (i, row) in logits.chunks_exact(101).enumerate() {
                prop_assert_eq!(row, &alone[at + i][..], "token {}", at + i);
            }
            at += n;
        }
    }
}

/// The quantised kernels, with every number of rows from 1 to 65.
#[test]
fn quantized_rows_from_1_to_65() {
    let checkpoint = Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap();
    let tokens = tokens(65, 49152, 4);
    for kernels in [KernelChoice::Avx2, KernelChoice::Avx512] {
        let Some(alone) = one_by_one(&checkpoint, kernels, &tokens) else { continue };
        let mut model = load(&checkpoint, kernels, 3).unwrap();
        let mut cache = model.new_cache();
        for n in 1..=65 {
            cache.truncate(0);
            let logits = model.forward(&mut cache, &tokens[..n], LogitsWanted::Last).unwrap();
            assert_eq!(logits, &alone[n - 1][..], "{kernels:?}, {n} rows");
        }
    }
}

#[test]
fn a_refused_call_leaves_the_cache_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoint, _) = checkpoints::open(dir.path(), UNTIED, 3);
    let mut model = load(&checkpoint, KernelChoice::Auto, 1).unwrap();
    let mut cache = model.new_cache();
    model.forward(&mut cache, &[1, 2, 3], LogitsWanted::None).unwrap();
    let mut fails = |tokens: &[u32]| {
        let error = model.forward(&mut cache, tokens, LogitsWanted::Last).map(<[f32]>::len).unwrap_err();
        assert_eq!(cache.len(), 3);
        error
    };
    assert!(matches!(fails(&[]), EngineError::Empty));
    assert!(matches!(fails(&[1, 101]), EngineError::TokenOutOfRange { id: 101, vocab: 101 }));
    assert!(matches!(fails(&[0; 1022]), EngineError::CacheFull { capacity: 1024, needed: 1025 }));
}
