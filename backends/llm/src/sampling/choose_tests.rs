#![allow(clippy::unwrap_used, clippy::expect_used)]
use proptest::prelude::*;

use super::*;
use crate::executor::SlotSampling;

const VOCAB: usize = 70;

fn row<'a>(prompt: &'a [u32], generated: &'a [u32]) -> Row<'a> {
    Row { prompt, generated, mask: None, sample: generated.len() as u32 }
}

fn mask(allowed: &[u32]) -> Vec<u32> {
    let mut words = vec![0; VOCAB.div_ceil(32)];
    allowed.iter().for_each(|&t| words[t as usize / 32] |= 1 << (t % 32));
    words
}

fn wave() -> Vec<f32> {
    (0..VOCAB).map(|i| (i as f32 * 1.7).sin() * 4.0).collect()
}

#[test]
fn rules_apply_in_their_order() {
    let slot = SlotSampling {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(0, 1.0), (3, -1.0), (5, f32::NEG_INFINITY)],
        min_tokens: 4,
        end_ids: vec![6],
        ..SlotSampling::default()
    };
    let mut logits = vec![1.0, 2.0, -2.0, 1.0, 0.5, 9.0, 9.0, 0.0];
    let words = [0b1111_1110];
    let row = Row { mask: Some(&words), ..row(&[1, 2, 2], &[1, 1, 3]) };
    rules::apply(&mut logits, &slot, &row, &mut rules::Counts::default());
    let no = f32::NEG_INFINITY;
    // 1: 2/2 - 0.5 - 2*0.25; 2: -2*2; 3: (1-1)*2 - 0.5 - 0.25
    assert_eq!(logits, [no, 0.0, -4.0, -0.75, 0.5, no, no, 0.0]);
}

#[test]
fn min_tokens_end_with_the_count() {
    let slot = SlotSampling { min_tokens: 2, end_ids: vec![1], ..SlotSampling::default() };
    let choose = |generated: &[u32]| {
        Sampler::new().choose(&mut [0.0, 5.0, 1.0], &slot, &row(&[0], generated)).unwrap().token
    };
    assert_eq!([choose(&[]), choose(&[0]), choose(&[0, 0])], [2, 2, 1]);
}

#[test]
fn nothing_left_to_choose() {
    let none = mask(&[]);
    let row = Row { mask: Some(&none), ..row(&[0], &[]) };
    assert_eq!(Sampler::new().choose(&mut wave(), &SlotSampling::default(), &row), None);
    let hot = SlotSampling { temperature: 1.0, ..SlotSampling::default() };
    assert_eq!(Sampler::new().choose(&mut wave(), &hot, &row), None);
    let all = mask(&(0..VOCAB as u32).collect::<Vec<_>>());
    let row = Row { mask: Some(&all), ..row };
    assert_eq!(Sampler::new().choose(&mut [f32::NAN; 3], &hot, &row), None);
}

#[test]
fn a_short_mask_forbids_the_rest() {
    let words = [u32::MAX];
    let mut logits = vec![0.0; 40];
    logits[39] = 9.0;
    let row = Row { mask: Some(&words), ..row(&[0], &[]) };
    assert_eq!(Sampler::new().choose(&mut logits, &SlotSampling::default(), &row).unwrap().token, 0);
}

#[test]
fn logprobs_are_those_of_softmax() {
    let p = [0.5f32, 0.3, 0.15, 0.05];
    let mut logits: Vec<f32> = p.iter().map(|p| p.ln() + 3.0).collect();
    let slot = SlotSampling { logprobs: Some(3), temperature: 0.01, ..SlotSampling::default() };
    let choice = Sampler::new().choose(&mut logits, &slot, &row(&[0], &[])).unwrap();
    assert_eq!(choice.token, 0);
    assert!((choice.logprob.unwrap().exp() - 0.5).abs() < 1e-6);
    let top: Vec<(u32, f32)> = choice.top.iter().map(|t| (t.token, t.logprob.exp())).collect();
    assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(top.iter().zip(p).all(|(t, p)| (t.1 - p).abs() < 1e-6), "{top:?}");
}

#[test]
fn min_p_cuts_the_unlikely() {
    let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    let mut counts = [0u32; 4];
    for seed in 0..20_000 {
        let slot = SlotSampling { temperature: 1.0, min_p: 0.5, seed, ..SlotSampling::default() };
        let choice = Sampler::new().choose(&mut logits.clone(), &slot, &row(&[0], &[])).unwrap();
        counts[choice.token as usize] += 1;
    }
    let share = f64::from(counts[0]) / 20_000.0;
    assert!((share - 0.625).abs() < 0.015 && counts[2] + counts[3] == 0, "{counts:?}");
}

#[test]
fn bad_rules_are_named() {
    let error = |slot: SlotSampling| slot.check(VOCAB).unwrap_err().to_string();
    let d = SlotSampling::default;
    assert_eq!(error(SlotSampling { min_p: 1.5, ..d() }), "min_p is 1.5, it must be from 0 to 1");
    assert_eq!(
        error(SlotSampling { repetition_penalty: 0.0, ..d() }),
        "repetition_penalty is 0, it must be a number over 0"
    );
    assert!(error(SlotSampling { presence_penalty: f32::NAN, ..d() }).starts_with("presence_penalty is NaN"));
    assert!(
        error(SlotSampling { logit_bias: vec![(70, 0.0)], ..d() }).starts_with("logit_bias is for token 70")
    );
    assert!(
        error(SlotSampling { logit_bias: vec![(0, f32::INFINITY)], ..d() }).starts_with("logit_bias is inf")
    );
    assert_eq!(
        error(SlotSampling { logprobs: Some(2000), ..d() }),
        "logprobs is 2000, it must be at most 1024"
    );
    assert_eq!(d().check(VOCAB), Ok(()));
}

prop_compose! {
    fn slots()(
        temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0],
        top_k in 0u32..80, top_p in 0.05f32..=1.0, min_p in prop_oneof![Just(0.0f32), 0.0f32..1.0],
        repetition_penalty in 0.5f32..2.0, presence_penalty in -1f32..1.0, frequency_penalty in -1f32..1.0,
        logit_bias in prop::collection::vec((0u32..VOCAB as u32, -5f32..5.0), 0..5),
        seed: u64, logprobs in prop::option::of(0u32..80),
    ) -> SlotSampling {
        SlotSampling { temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
            logit_bias, min_tokens: 3, end_ids: vec![1, 2], seed, logprobs }
    }
}

proptest! {
    /// A forbidden token is never chosen, whatever the rules; and scratch from other rows changes nothing.
    #[test]
    fn forbidden_tokens_are_never_chosen(
        slot in slots(),
        allowed in prop::collection::vec(3u32..VOCAB as u32, 1..20),
        prompt in prop::collection::vec(0u32..VOCAB as u32 + 9, 1..20),
        generated in prop::collection::vec(0u32..VOCAB as u32, 0..10),
        logits in prop::collection::vec(-8f32..8.0, VOCAB),
    ) {
        let words = mask(&allowed);
        let row = Row { mask: Some(&words), ..row(&prompt, &generated) };
        let mut used = Sampler::new();
        used.choose(&mut wave(), &SlotSampling { presence_penalty: 1.0, ..slot.clone() }, &row);
        let choice = used.choose(&mut logits.clone(), &slot, &row).unwrap();
        prop_assert!(allowed.contains(&choice.token));
        prop_assert_eq!(&choice, &Sampler::new().choose(&mut logits.clone(), &slot, &row).unwrap());
        prop_assert_eq!(choice.logprob.is_some(), slot.logprobs.is_some());
        prop_assert_eq!(choice.top.len(), slot.logprobs.unwrap_or(0).min(VOCAB as u32) as usize * usize::from(slot.logprobs != Some(0)));
        let total: f32 = choice.top.iter().map(|t| t.logprob.exp()).sum();
        prop_assert!(total < 1.001, "{total}");
        prop_assert!(choice.top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
    }

    /// Neutral rules choose what the plain sampler chooses.
    #[test]
    fn neutral_rules_change_nothing(
        logits in prop::collection::vec(-8f32..8.0, VOCAB), temperature in 0f32..2.0, top_k in 0u32..10,
        top_p in 0.1f32..=1.0, seed: u64, sample in 0u32..100,
    ) {
        let slot = SlotSampling { temperature, top_k, top_p, seed, ..SlotSampling::default() };
        let request = SamplingRequest { temperature: Some(temperature), top_k: Some(top_k.into()), top_p: Some(top_p), random_seed: Some(seed) };
        let plain = Sampler::new().sample(&logits, &SamplingParams::new(&request).unwrap(), sample.into());
        let row = Row { prompt: &[], generated: &[], mask: None, sample };
        prop_assert_eq!(Sampler::new().choose(&mut logits.clone(), &slot, &row).map(|c| c.token), plain);
    }
}
