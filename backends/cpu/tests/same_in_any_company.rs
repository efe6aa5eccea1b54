//! A row's result is the same to the last bit whatever runs beside it, however its prompt was cut, whose blocks it
//! shares, how often it was preempted, and on how many threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use proptest::prelude::*;
use support::checkpoints::{self, Shape, UNTIED};
use support::driver::{Answer, Random, TAME, Wanted, Wildness, drive};
use trireme_cpu::{
    CpuExecutor, EngineError, ExecutorOptions, KernelChoice, KvCapacity, LlamaModel, LogitsWanted, Options,
};
use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::executor::SlotSampling;

const KERNELS: [KernelChoice; 3] = [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512];

fn load(checkpoint: &Checkpoint, kernels: KernelChoice, threads: usize) -> Option<LlamaModel> {
    LlamaModel::load(checkpoint, Options { kernels, threads, ..Options::default() }).ok()
}

fn executor(model: LlamaModel, max_slots: usize, blocks: usize) -> CpuExecutor {
    let kv = KvCapacity::Tokens(blocks * 32);
    let model_options = Options::default();
    CpuExecutor::new(
        model,
        ExecutorOptions { model: model_options, max_slots, max_step_tokens: 512, max_context: None, kv },
    )
    .unwrap()
}

/// Logits of each token, one token at a time.
fn one_by_one(model: &mut LlamaModel, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut cache = model.new_cache();
    tokens.iter().map(|t| model.forward(&mut cache, &[*t], LogitsWanted::Last).unwrap().to_vec()).collect()
}

fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 37 + seed * 11 + i * i) % vocab) as u32).collect()
}

/// Some greedy, some at random, each with log-probabilities, so that what decode rows compute is compared too.
fn sampling(seed: u64) -> SlotSampling {
    let temperature = if seed.is_multiple_of(2) { 0.0 } else { 1.0 };
    SlotSampling { temperature, seed, logprobs: Some(3), ..SlotSampling::default() }
}

/// Each text alone on one thread, its prompt at once; then all of them together, wildly.
fn check(
    checkpoint: &Checkpoint,
    kernels: KernelChoice,
    threads: usize,
    wanted: &[Wanted],
    wild: Wildness,
    seed: u64,
) {
    let Some(mut alone) = load(checkpoint, kernels, 1) else { return };
    let vocab = alone.config().vocab_size;
    let expected: Vec<Answer> = wanted
        .iter()
        .map(|w| drive(&mut executor(alone.clone(), 1, 16), std::slice::from_ref(w), TAME, 0).remove(0))
        .collect();
    let slots = 1 + Random(seed).below(wanted.len());
    let mut together = executor(load(checkpoint, kernels, threads).unwrap(), slots, 16 * slots);
    let answers = drive(&mut together, wanted, wild, seed);
    for ((w, expected), answer) in wanted.iter().zip(&expected).zip(&answers) {
        assert_eq!(answer.sampled, expected.sampled, "{kernels:?} {wild:?} {seed}");
        let all: Vec<u32> = w.prompt.iter().copied().chain(expected.tokens()).collect();
        let golden = one_by_one(&mut alone, &all);
        for (position, row) in answer.logits.iter().chain(&expected.logits) {
            assert_eq!(row.len(), vocab);
            assert_eq!(row, &golden[*position], "{kernels:?} {wild:?} {seed}: position {position}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Up to five texts of up to 330 tokens (two attention splits), some with the same beginning.
    #[test]
    fn batches_chunks_blocks_and_threads(
        lengths in prop::collection::vec((1usize..=330, 0usize..3, 1usize..=8), 1..=5),
        chunk in prop::sample::select(vec![1usize, 16, 65, 300]),
        idle in 2usize..6,
        preempt in prop::sample::select(vec![0usize, 5, 20]),
        share: bool,
        threads in 1usize..=4,
        dtype in prop::sample::select(vec!["F32", "F16", "BF16"]),
        kernels in prop::sample::select(KERNELS.to_vec()),
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoint, _) = checkpoints::open(dir.path(), Shape { dtype, ..UNTIED }, 3);
        let wanted: Vec<Wanted> = lengths
            .iter()
            .zip(1..)
            .map(|((n, family, generate), i)| {
                Wanted { prompt: tokens(*n, 101, *family), tokens: *generate, sampling: sampling(seed.wrapping_add(i)) }
            })
            .collect();
        let wild = Wildness { chunk, idle, preempt, share, context_logits: seed.is_multiple_of(2) };
        check(&checkpoint, kernels, threads, &wanted, wild, seed);
    }
}

/// The quantised kernels, with every number of rows from 1 to 65.
#[test]
fn quantized_rows_from_1_to_65() {
    let checkpoint = Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap();
    let tokens = tokens(65, 49152, 4);
    for kernels in [KernelChoice::Avx2, KernelChoice::Avx512] {
        let Some(mut alone) = load(&checkpoint, kernels, 1) else { continue };
        let alone = one_by_one(&mut alone, &tokens);
        let mut model = load(&checkpoint, kernels, 3).unwrap();
        let mut cache = model.new_cache();
        for n in 1..=65 {
            cache.truncate(0);
            let logits = model.forward(&mut cache, &tokens[..n], LogitsWanted::Last).unwrap();
            assert_eq!(logits, &alone[n - 1][..], "{kernels:?}, {n} rows");
        }
    }
}

/// The quantised kernels in steps of prompts and decode rows.
#[test]
fn quantized_texts_together() {
    let checkpoint = Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap();
    let wanted: Vec<Wanted> = (0..9)
        .map(|i| Wanted { prompt: tokens(3 + 9 * i, 49152, i % 2), tokens: 4, sampling: sampling(i as u64) })
        .collect();
    let wild = Wildness { chunk: 40, idle: 5, preempt: 15, share: true, context_logits: false };
    check(&checkpoint, KernelChoice::Auto, 2, &wanted, wild, 7);
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
