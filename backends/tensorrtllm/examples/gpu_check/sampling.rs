//! The sampler on given logits against the same rules in double precision.

use std::sync::Arc;

use trireme_llm::checkpoint::WeightType;
use trireme_llm::executor::{
    Admission, BlockId, BlockTableChange, DecodeRow, Sampled, Slot, SlotSampling, StepDiff, TokenMask,
};
use trireme_llm::sampling::philox4x32;
use trireme_tensorrtllm::{CudaExecutor, Options, Source};

use crate::Outcome;
use crate::random::Random;
use crate::shapes::small;

const ROWS: usize = 24;

/// A row: its rules, what it read and wrote before, the mask of this step.
#[derive(Clone)]
struct Case {
    rules: SlotSampling,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    mask: Option<Vec<u32>>,
    index: u32,
}

pub(crate) fn run() -> Outcome {
    for vocab in [1003, 128_256] {
        let mut config = small();
        config.vocab_size = vocab;
        let options =
            Options { max_slots: ROWS, max_kv_tokens: Some(4096), tune: false, ..Options::default() };
        let mut executor = CudaExecutor::load(&config, &Source::Dummy(WeightType::BF16), &options)?;
        let mut random = Random(vocab as u64);
        let (mut same, mut drawn) = (0, 0);
        for round in 0..12 {
            let cases: Vec<Case> = (0..ROWS).map(|_| case(&mut random, vocab)).collect();
            let logits: Vec<Vec<f32>> = (0..ROWS).map(|i| row(&mut random, vocab, (round + i) % 5)).collect();
            let step = step(&cases, round > 0);
            let out = executor.sample_from(&step, &logits)?;
            for (i, (case, logits)) in cases.iter().zip(&logits).enumerate() {
                let got = out.iter().find(|s| s.slot == Slot(i as u32)).ok_or("a slot is missing")?;
                let context = format!("vocabulary {vocab}, round {round}, row {i}, {:?}", case.rules);
                let exact = check(case, logits, got).map_err(|e| format!("{e}\n{context}"))?;
                drawn += 1;
                same += usize::from(exact);
            }
        }
        // Rounding may move a draw to the neighbour at the edge of its share.
        println!("vocabulary {vocab}: {same} of {drawn} draws are exactly the reference's");
        if same * 100 < drawn * 98 {
            return Err(format!("only {same} of {drawn} draws agree").into());
        }
        let nan = vec![vec![f32::NAN; vocab]];
        let one = StepDiff {
            decode: vec![DecodeRow { slot: Slot(0), position: 1, sample: 0 }],
            ..StepDiff::default()
        };
        let out = executor.sample_from(&one, &nan)?;
        if out[0].token.is_some() {
            return Err("a token was chosen where no logit is a number".into());
        }
    }
    Ok(())
}

fn case(random: &mut Random, vocab: usize) -> Case {
    let mut pick = |options: &[f32]| options[random.below(options.len())];
    let temperature = pick(&[0.0, 0.7, 1.0, 1.8]);
    let top_p = pick(&[1.0, 1.0, 0.9, 0.3, 0.0]);
    let min_p = pick(&[0.0, 0.0, 0.05]);
    let repetition_penalty = pick(&[1.0, 1.0, 1.3]);
    let presence_penalty = pick(&[0.0, 0.0, 0.6]);
    let frequency_penalty = pick(&[0.0, 0.0, 0.4]);
    let top_k = [0, 0, 1, 5, 50, 1000][random.below(6)];
    let logprobs = [None, Some(0), Some(5), Some(20)][random.below(4)];
    let ids = |random: &mut Random, n: usize| -> Vec<u32> {
        (0..n).map(|_| random.below(vocab.min(500)) as u32).collect()
    };
    let logit_bias = if random.below(3) == 0 {
        vec![(random.below(vocab) as u32, 5.0), (random.below(vocab) as u32, f32::NEG_INFINITY)]
    } else {
        vec![]
    };
    let min_tokens = [0, 4][random.below(2)];
    let end_ids = ids(random, 3);
    let mask = (random.below(4) == 0).then(|| {
        let mut words: Vec<u32> =
            (0..vocab.div_ceil(32)).map(|_| random.next() as u32 & random.next() as u32).collect();
        words[0] |= 1;
        words
    });
    Case {
        rules: SlotSampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            min_tokens,
            end_ids,
            seed: random.next(),
            logprobs,
        },
        prompt: ids(random, 40),
        generated: ids(random, 60),
        mask,
        index: random.below(8) as u32,
    }
}

/// Logits of several kinds: normal, peaked, with many ties, with infinities and NaN, flat.
fn row(random: &mut Random, vocab: usize, kind: usize) -> Vec<f32> {
    (0..vocab)
        .map(|i| {
            let v = random.normal() * 3.0;
            match kind {
                0 => v,
                1 => v * 4.0,
                2 => (v * 2.0).round() / 2.0,
                3 if i % 97 == 5 => f32::NAN,
                3 if i % 89 == 6 => f32::NEG_INFINITY,
                3 => v,
                _ => v * 0.01,
            }
        })
        .collect()
}

fn step(cases: &[Case], again: bool) -> StepDiff {
    let mut step = StepDiff::default();
    for (i, case) in cases.iter().enumerate() {
        let slot = Slot(i as u32);
        if again {
            step.freed.push(slot);
        }
        step.admitted.push(Admission {
            slot,
            sampling: Arc::new(case.rules.clone()),
            prompt: case.prompt.clone().into(),
            generated: case.generated.clone().into(),
        });
        step.blocks.push(BlockTableChange { slot, first: 0, blocks: vec![BlockId(i as u32)] });
        step.decode.push(DecodeRow { slot, position: 0, sample: case.index });
        if let Some(mask) = &case.mask {
            step.masks.push(TokenMask { slot, words: mask.clone().into() });
        }
    }
    step
}

/// Whether the token is exactly the reference's; an error if it may not be chosen at all.
fn check(case: &Case, logits: &[f32], got: &Sampled) -> Result<bool, String> {
    let r = &case.rules;
    let bit = |i: usize| case.mask.as_ref().is_none_or(|m| m[i / 32] >> (i % 32) & 1 == 1);
    let mut l: Vec<f64> = Vec::with_capacity(logits.len());
    for (i, &logit) in logits.iter().enumerate() {
        let id = i as u32;
        let mut v = if bit(i) { f64::from(logit) } else { f64::NEG_INFINITY };
        v += r.logit_bias.iter().filter(|b| b.0 == id).map(|b| f64::from(b.1)).sum::<f64>();
        if case.index < r.min_tokens && r.end_ids.contains(&id) {
            v = f64::NEG_INFINITY;
        }
        let count = case.generated.iter().filter(|g| **g == id).count();
        if (count > 0 || case.prompt.contains(&id)) && r.repetition_penalty != 1.0 {
            let p = f64::from(r.repetition_penalty);
            v = if v > 0.0 { v / p } else { v * p };
        }
        if count > 0 {
            v -= f64::from(r.presence_penalty) + f64::from(r.frequency_penalty) * count as f64;
        }
        l.push(if v.is_nan() { f64::NEG_INFINITY } else { v });
    }
    let token = got.token.ok_or("no token")? as usize;
    let rank = |a: &usize, b: &usize| l[*b].total_cmp(&l[*a]).then(a.cmp(b));
    let mut order: Vec<usize> = (0..l.len()).filter(|&i| l[i] > f64::NEG_INFINITY).collect();
    order.sort_by(rank);
    check_logprobs(case, &l, &order, token, got)?;
    let best = order[0];
    if r.temperature == 0.0 || r.top_k == 1 || r.top_p == 0.0 {
        return if l[best] - l[token] < 1e-5 {
            Ok(token == best)
        } else {
            Err(format!("token {token}, best {best}"))
        };
    }
    let weight = |i: usize| ((l[i] - l[best]) / f64::from(r.temperature)).exp();
    if r.top_k > 0 {
        order.truncate(r.top_k as usize);
    }
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    let mut sum = 0.0;
    let mut kept = order.len();
    if r.top_p < 1.0 {
        for (n, &i) in order.iter().enumerate() {
            sum += weight(i);
            if sum >= f64::from(r.top_p) * total {
                kept = n + 1;
                break;
            }
        }
    }
    // One more may be in for rounding's sake.
    let allowed = |i: usize, slack: f64| weight(i) >= f64::from(r.min_p) * (1.0 - slack);
    let position =
        order.iter().position(|&i| i == token).ok_or_else(|| format!("token {token} is outside top_k"))?;
    let near = |a: usize, b: usize| (l[a] - l[b]).abs() < 1e-3;
    if !(position <= kept || near(order[kept - 1], token)) || !allowed(token, 1e-3) {
        return Err(format!("token {token} of rank {position} is outside the {kept} that may be chosen"));
    }
    order.truncate(kept);
    order.retain(|&i| allowed(i, 0.0));
    order.sort_unstable();
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    let words = philox4x32([case.index, 0, 0, 0], [r.seed as u32, (r.seed >> 32) as u32]);
    let u = (f64::from(words[0]) * 4_294_967_296.0 + f64::from(words[1])) / 2f64.powi(64);
    let mut left = u * total;
    for &i in &order {
        left -= weight(i);
        if left < 0.0 {
            return Ok(i == token);
        }
    }
    Ok(false)
}

fn check_logprobs(
    case: &Case,
    l: &[f64],
    order: &[usize],
    token: usize,
    got: &Sampled,
) -> Result<(), String> {
    let Some(wanted) = case.rules.logprobs else {
        return if got.logprob.is_none() {
            Ok(())
        } else {
            Err("a log-probability that nobody wants".into())
        };
    };
    let p = log_softmax(l);
    let logprob = f64::from(got.logprob.ok_or("no log-probability")?);
    if (logprob - p[token]).abs() > 2e-3 {
        return Err(format!("log-probability {logprob}, it is {}", p[token]));
    }
    let count = (wanted as usize).min(order.len());
    if got.top.len() != count {
        return Err(format!("{} best tokens, {count} are wanted", got.top.len()));
    }
    for (top, &best) in got.top.iter().zip(order) {
        let error = (f64::from(top.logprob) - p[best]).abs();
        if error > 2e-3 || (p[top.token as usize] - p[best]).abs() > 1e-4 {
            return Err(format!("best token {} at {}, it is {best} at {}", top.token, top.logprob, p[best]));
        }
    }
    Ok(())
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln() + max;
    logits.iter().map(|l| l - sum).collect()
}
