//! Whole models against the reference, in every way a step can run.

use std::collections::HashMap;

use trireme_llm::checkpoint::{Checkpoint, DecoderConfig, RopeScaling};
use trireme_llm::executor::SlotSampling;
use trireme_tensorrtllm::{CudaExecutor, Options, Source};

use crate::Outcome;
use crate::driver::Driver;
use crate::random::{Random, bytes};
use crate::reference::{Fault, Reference, log_softmax};
use crate::shapes::{small, variants};

/// Mean divergence from the reference that bf16 explains on these models, in nats, with room.
const MEAN_KL: f64 = 4e-4;
/// Where the reference's best two are further apart than this, the same one must win.
const TIE: f64 = 0.1;

/// Writes the reference's weights as a checkpoint and opens it.
fn checkpoint(reference: &Reference, dir: &std::path::Path) -> Checkpoint {
    let c = &reference.config;
    let data: HashMap<&String, (Vec<u8>, &Vec<usize>)> =
        reference.tensors.iter().map(|(name, (shape, values))| (name, (bytes(values), shape))).collect();
    let views = data.iter().map(|(name, (bytes, shape))| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, (*shape).clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    let mut config = serde_json::json!({
        "architectures": [if c.qk_norm { "Qwen3ForCausalLM" } else if c.qkv_bias { "Qwen2ForCausalLM" } else if c.sliding_window.is_some() { "MistralForCausalLM" } else { "LlamaForCausalLM" }],
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_layers, "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads, "head_dim": c.head_dim, "rope_theta": c.rope_theta,
        "rms_norm_eps": c.rms_norm_eps, "max_position_embeddings": c.max_position_embeddings,
        "tie_word_embeddings": c.tie_word_embeddings, "hidden_act": "silu",
    });
    if let Some(window) = c.sliding_window {
        config["sliding_window"] = window.into();
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    Checkpoint::open(dir).unwrap()
}

fn options(slots: usize) -> Options {
    Options {
        max_slots: slots,
        max_step_tokens: 512,
        max_kv_tokens: Some(64 * 1024),
        tune: false,
        ..Options::default()
    }
}

/// An executor with the reference's weights. They go through a checkpoint on disk.
fn executor(reference: &Reference, options: &Options) -> CudaExecutor {
    let dir = tempfile::tempdir().unwrap();
    // The file cannot say everything that a configuration of these checks can.
    let mut plain = reference.config.clone();
    plain.rope_scaling = RopeScaling::None;
    plain.first_window_layer = 0;
    if plain != reference.config || !file_says_it(&plain) {
        return CudaExecutor::load(
            &reference.config,
            &Source::Tensors(&reference_source(reference)),
            options,
        )
        .expect("load");
    }
    let checkpoint = checkpoint(reference, dir.path());
    CudaExecutor::load(&reference.config, &Source::Checkpoint(&checkpoint), options).expect("load")
}

fn file_says_it(c: &DecoderConfig) -> bool {
    !c.qkv_bias && !c.qk_norm && c.sliding_window.is_none()
}

fn reference_source(reference: &Reference) -> impl Fn(&str) -> Option<Vec<u8>> + '_ {
    |name| reference.tensors.get(name).map(|(_, values)| bytes(values))
}

/// How far what the GPU computed is from the reference.
#[derive(Default)]
struct Score {
    kl: Vec<f64>,
    other_best: usize,
    logprob_error: f64,
}

impl Score {
    fn logits(&mut self, ours: &[f32], reference: &[f64]) {
        let ours: Vec<f64> = ours.iter().map(|v| f64::from(*v)).collect();
        let (p, q) = (log_softmax(reference), log_softmax(&ours));
        let kl = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.kl.push(if kl.is_nan() { f64::INFINITY } else { kl });
        let best = argmax(&ours);
        if reference[argmax(reference)] - reference[best] > TIE {
            self.other_best += 1;
        }
    }

    fn token(&mut self, token: u32, logprob: f32, reference: &[f64]) {
        let p = log_softmax(reference);
        if p[argmax(&p)] - p[token as usize] > TIE {
            self.other_best += 1;
        }
        let error = (p[token as usize] - f64::from(logprob)).abs();
        self.logprob_error = self.logprob_error.max(if error.is_nan() { f64::INFINITY } else { error });
    }

    fn mean_kl(&self) -> f64 {
        self.kl.iter().sum::<f64>() / self.kl.len().max(1) as f64
    }

    fn holds(&self) -> bool {
        self.mean_kl() < MEAN_KL && self.other_best == 0 && self.logprob_error < 0.15
    }
}

fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

fn tokens(random: &mut Random, n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|_| random.below(vocab) as u32).collect()
}

fn greedy() -> SlotSampling {
    SlotSampling { logprobs: Some(2), ..SlotSampling::default() }
}

/// Logits of whole prompts, read in pieces of several sizes, side by side.
fn context_logits(driver: &mut Driver, reference: &Reference, fault: Fault, seed: u64) -> Score {
    let mut random = Random(seed);
    let mut score = Score::default();
    let vocab = reference.config.vocab_size;
    for (lengths, piece) in [(vec![1, 33, 200], 512), (vec![130, 97], 64), (vec![300], 7), (vec![160], 32)] {
        let prompts: Vec<Vec<u32>> = lengths.iter().map(|&n| tokens(&mut random, n, vocab)).collect();
        let mut got: Vec<Vec<f32>> = vec![Vec::new(); prompts.len()];
        for (slot, prompt) in prompts.iter().enumerate() {
            driver.admit(slot as u32, prompt, greedy());
        }
        let longest = lengths.iter().max().copied().unwrap_or(0);
        for at in (0..longest).step_by(piece) {
            for (slot, prompt) in prompts.iter().enumerate() {
                if at < prompt.len() {
                    let end = prompt.len().min(at + piece);
                    driver.chunk(slot as u32, &prompt[at..end], end == prompt.len(), true);
                }
            }
            for (slot, logits) in driver.step().context_logits {
                got[slot.0 as usize].extend(logits);
            }
        }
        for (slot, prompt) in prompts.iter().enumerate() {
            let wanted = reference.logits(prompt, fault);
            assert_eq!(got[slot].len(), wanted.len() * vocab);
            got[slot].chunks_exact(vocab).zip(&wanted).for_each(|(o, r)| score.logits(o, r));
            driver.free(slot as u32);
        }
    }
    score
}

/// Greedy texts of several sequences that come and go, two steps in flight, prompts read beside decode rows.
fn generation(driver: &mut Driver, reference: &Reference, count: usize, seed: u64) -> Score {
    let mut random = Random(seed);
    let vocab = reference.config.vocab_size;
    let mut texts: Vec<Vec<u32>> = Vec::new();
    let mut prompts = Vec::new();
    let mut logprobs: Vec<Vec<f32>> = vec![Vec::new(); count];
    let mut live: Vec<u32> = Vec::new();
    for slot in 0..count as u32 {
        let length = 1 + random.below(90);
        let prompt = tokens(&mut random, length, vocab);
        texts.push(prompt.clone());
        prompts.push(prompt);
        driver.admit(slot, &prompts[slot as usize], greedy());
    }
    let collect =
        |out: trireme_llm::executor::StepOutput, texts: &mut Vec<Vec<u32>>, logprobs: &mut Vec<Vec<f32>>| {
            for s in out.sampled {
                texts[s.slot.0 as usize].push(s.token.expect("a token"));
                logprobs[s.slot.0 as usize].push(s.logprob.expect("a logprob"));
            }
        };
    // A third starts at once, the others join while those decode.
    let mut waiting = (0..count as u32).collect::<std::collections::VecDeque<_>>();
    for round in 0..40 {
        if round % 5 == 0 {
            for _ in 0..count.div_ceil(4).max(1) {
                if let Some(slot) = waiting.pop_front() {
                    let prompt = prompts[slot as usize].clone();
                    driver.chunk(slot, &prompt, true, false);
                    driver.decode(&live);
                    live.push(slot);
                    if let Some(out) = driver.submit() {
                        collect(out, &mut texts, &mut logprobs);
                    }
                }
            }
        }
        driver.decode(&live);
        if let Some(out) = driver.submit() {
            collect(out, &mut texts, &mut logprobs);
        }
    }
    for out in driver.drain() {
        collect(out, &mut texts, &mut logprobs);
    }
    let mut score = Score::default();
    for (slot, text) in texts.iter().enumerate() {
        let start = prompts[slot].len();
        let wanted = reference.logits(&text[..text.len() - 1], Fault::None);
        for (i, logprob) in logprobs[slot].iter().enumerate() {
            score.token(text[start + i], *logprob, &wanted[start + i - 1]);
        }
        driver.free(slot as u32);
    }
    score
}

pub(crate) fn run() -> Outcome {
    let mut failures = 0;
    let mut report = |name: &str, score: &Score| {
        let verdict = if score.holds() { "ok  " } else { "FAIL" };
        failures += usize::from(!score.holds());
        println!(
            "{verdict}  {name}: mean KL {:.1e}, highest {:.1e}, other best {}, logprob error {:.3}",
            score.mean_kl(),
            score.kl.iter().copied().fold(0.0, f64::max),
            score.other_best,
            score.logprob_error
        );
    };
    for (i, (name, config)) in variants().into_iter().enumerate() {
        let reference = Reference::new(&config, 100 + i as u64);
        let mut driver = Driver::new(executor(&reference, &options(48)));
        report(&format!("{name}, logits"), &context_logits(&mut driver, &reference, Fault::None, 7));
        for count in [1, 5, 14, 40] {
            report(&format!("{name}, {count} texts"), &generation(&mut driver, &reference, count, 11));
        }
    }
    let reference = Reference::new(&small(), 5);
    for (name, options) in [
        ("no graphs", Options { graphs: false, ..options(48) }),
        ("no early launches", Options { early_launch: false, ..options(48) }),
        ("cuBLASLt for every size", Options { skinny_rows: 0, ..options(48) }),
        ("tuned", Options { tune: true, ..options(48) }),
    ] {
        let mut driver = Driver::new(executor(&reference, &options));
        report(&format!("{name}, logits"), &context_logits(&mut driver, &reference, Fault::None, 8));
        for count in [3, 20] {
            report(&format!("{name}, {count} texts"), &generation(&mut driver, &reference, count, 12));
        }
    }
    if failures > 0 { Err(format!("{failures} comparisons fail").into()) } else { Ok(()) }
}

/// The comparison must see faults of the size that has been seen in the field.
pub(crate) fn faults() -> Outcome {
    let reference = Reference::new(&small(), 6);
    let mut driver = Driver::new(executor(&reference, &options(8)));
    if !context_logits(&mut driver, &reference, Fault::None, 9).holds() {
        return Err("the comparison fails without a fault".into());
    }
    for fault in [Fault::RopeOffset, Fault::StaleBlock, Fault::MissingScale] {
        let score = context_logits(&mut driver, &reference, fault, 9);
        if score.holds() {
            return Err(format!("{fault:?} is not seen").into());
        }
        println!("seen  {fault:?}: mean KL {:.1e}, other best {}", score.mean_kl(), score.other_best);
    }
    Ok(())
}
