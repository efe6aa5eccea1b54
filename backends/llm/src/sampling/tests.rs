#![allow(clippy::unwrap_used, clippy::expect_used)]
use proptest::prelude::*;

use super::*;

fn params(temperature: f32, top_k: i64, top_p: f32, seed: u64) -> SamplingParams {
    SamplingParams::new(&SamplingRequest {
        temperature: Some(temperature),
        top_k: Some(top_k),
        top_p: Some(top_p),
        random_seed: Some(seed),
    })
    .unwrap()
}

/// The tokens that may be chosen, by sorting everything.
fn allowed(logits: &[f32], temperature: f32, top_k: usize, top_p: f32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let max = f64::from(logits[order[0] as usize]);
    let weight =
        |id: u32| f64::from(((f64::from(logits[id as usize]) - max) / f64::from(temperature)).exp() as f32);
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut sum = 0.0;
    // A little slack, since sums in another order round otherwise.
    let reach = order.iter().position(|&id| {
        sum += weight(id);
        sum >= f64::from(top_p) * total + 1e-9
    });
    order.truncate(reach.map_or(order.len(), |n| n + 1));
    order
}

proptest! {
    /// Of any length, with equals, infinities and what is no number.
    #[test]
    fn the_largest_is_found_wherever_it_is(
        logits in prop::collection::vec(
            prop_oneof![
                4 => (-3i8..=3).prop_map(f32::from),
                1 => prop::sample::select(vec![f32::NAN, -f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0]),
            ],
            0..600,
        ),
        quiet in any::<bool>(),
    ) {
        let logits: Vec<f32> = logits
            .into_iter()
            .map(|l| if quiet && l.is_finite() { f32::NEG_INFINITY } else { l })
            .collect();
        let mut best: Option<(u32, f32)> = None;
        for (id, &logit) in (0u32..).zip(&logits) {
            if !logit.is_nan() && best.is_none_or(|(_, max)| logit > max) {
                best = Some((id, logit));
            }
        }
        prop_assert_eq!(argmax(&logits), best.map(|(id, _)| id));
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let logits = [f32::NAN, 1.0, 3.0, 3.0, f32::NEG_INFINITY];
    let mut sampler = Sampler::new();
    assert_eq!(sampler.sample(&logits, &SamplingParams::GREEDY, 0), Some(2));
    for greedy in [params(0.0, 5, 0.5, 1), params(2.0, 1, 1.0, 1), params(2.0, 0, 0.0, 1)] {
        assert_eq!(sampler.sample(&logits, &greedy, 9), Some(2));
    }
    assert_eq!(sampler.sample(&[f32::NAN; 3], &SamplingParams::GREEDY, 0), None);
    assert_eq!(sampler.sample(&[f32::NAN; 3], &params(1.0, 0, 1.0, 0), 0), None);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3], &params(1.0, 0, 1.0, 0), 0), Some(0));
    assert_eq!(sampler.sample(&[0.0, f32::INFINITY], &params(1.0, 0, 0.9, 0), 0), Some(1));
}

#[test]
fn frequencies_follow_the_probabilities() {
    let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    let mut sampler = Sampler::new();
    let mut count = |p: SamplingParams| {
        let mut counts = [0u32; 4];
        (0..20_000).for_each(|i| counts[sampler.sample(&logits, &p, i).unwrap() as usize] += 1);
        counts.map(|n| f64::from(n) / 20_000.0)
    };
    let near = |found: [f64; 4], expected: [f64; 4]| {
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 0.015), "{found:?} {expected:?}");
    };
    near(count(params(1.0, 0, 1.0, 3)), [0.5, 0.3, 0.15, 0.05]);
    near(count(params(1.0, 2, 1.0, 3)), [0.625, 0.375, 0.0, 0.0]);
    near(count(params(1.0, 0, 0.81, 3)), [0.526, 0.316, 0.158, 0.0]);
    near(count(params(0.5, 0, 1.0, 3)), [0.685, 0.247, 0.062, 0.007]);
}

#[test]
fn the_choice_depends_on_seed_and_position_alone() {
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
    let p = params(1.0, 0, 0.95, 42);
    let forward: Vec<_> = (0..50).map(|i| Sampler::new().sample(&logits, &p, i).unwrap()).collect();
    let mut one = Sampler::new();
    let mut backward: Vec<_> = (0..50).rev().map(|i| one.sample(&logits, &p, i).unwrap()).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let other: Vec<_> = (0..50).map(|i| one.sample(&logits, &params(1.0, 0, 0.95, 43), i).unwrap()).collect();
    assert_ne!(forward, other);
}

#[test]
fn bad_parameters_are_named() {
    let error = |r: SamplingRequest| SamplingParams::new(&r).unwrap_err().to_string();
    let none = SamplingRequest::default();
    assert_eq!(
        error(SamplingRequest { temperature: Some(-0.5), ..none }),
        "temperature is -0.5, it must be a number of at least 0"
    );
    assert!(error(SamplingRequest { temperature: Some(f32::NAN), ..none }).starts_with("temperature is NaN"));
    assert_eq!(
        error(SamplingRequest { top_k: Some(-1), ..none }),
        "top_k is -1, it must be at least 0 (0 is all tokens)"
    );
    assert_eq!(error(SamplingRequest { top_p: Some(1.5), ..none }), "top_p is 1.5, it must be from 0 to 1");
    assert!(SamplingParams::new(&none).unwrap().is_greedy());
    assert!(!SamplingParams::new(&SamplingRequest { top_p: Some(0.9), ..none }).unwrap().is_greedy());
}

proptest! {
    #[test]
    fn only_allowed_tokens_are_chosen(
        logits in prop::collection::vec(prop_oneof![Just(0.5f32), -8f32..8.0], 1..600),
        temperature in 0.1f32..3.0, top_k in 0usize..80, top_p in 0.01f32..=1.0, seed: u64, position: u64,
    ) {
        let p = params(temperature, top_k as i64, top_p, seed);
        let id = Sampler::new().sample(&logits, &p, position).unwrap();
        let allowed = allowed(&logits, temperature, top_k, top_p);
        prop_assert!(allowed.contains(&id), "{id} of {allowed:?}");
    }

    #[test]
    fn any_logits_are_survived(bits in prop::collection::vec(any::<u32>(), 0..50), seed: u64) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let id = Sampler::new().sample(&logits, &params(0.7, 5, 0.9, seed), 0);
        prop_assert_eq!(id.is_none(), logits.iter().all(|l| l.is_nan()));
        prop_assert!(id.is_none_or(|id| !logits[id as usize].is_nan()));
    }
}
