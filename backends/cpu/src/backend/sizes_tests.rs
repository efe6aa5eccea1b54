//! What gives way, and what is refused.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// SmolLM2-135M's.
const SMALL: Costs =
    Costs { block_tokens: 32, block_bytes: 720 << 10, row_bytes: 46_592, vocab_size: 49_152, trained: 8_192 };

fn refused(sizes: &Sizes, free: u64) -> String {
    plan(&SMALL, sizes, free).unwrap_err().to_string()
}

#[test]
fn with_memory_enough_the_usual_is_taken() {
    let taken = plan(&SMALL, &Sizes::default(), 16 << 30).unwrap();
    assert_eq!((taken.slots, taken.step_tokens, taken.positions(), taken.gave_way), (64, 512, 16_384, false));
    assert_eq!(
        taken.to_string(),
        "max_batch_size 64, steps of 512 tokens, keys and values of 16384 tokens (up to 360 MiB)"
    );
}

/// Here a quarter of what is free held a context of 8,192 and nothing else, and the model was refused.
#[test]
fn what_nobody_asked_for_gives_way() {
    let taken = plan(&SMALL, &Sizes::default(), 500 << 20).unwrap();
    assert_eq!((taken.slots, taken.step_tokens), (64, 512));
    assert!(taken.positions() >= 2_048 && taken.positions() < 8_192 && taken.gave_way, "{taken:?}");
    assert!(taken.to_string().ends_with(", less than usual: only 500 MiB were free"), "{taken}");
    let taken = plan(&SMALL, &Sizes::default(), 60 << 20).unwrap();
    assert!((1..64).contains(&taken.slots) && taken.positions() >= 32, "{taken:?}");
}

/// What is asked for is taken or refused, never changed; what it needs may be more than the usual share.
#[test]
fn what_was_asked_for_is_refused_by_name() {
    let sizes = Sizes { max_context: Some(8_192), ..Sizes::default() };
    let taken = plan(&SMALL, &sizes, 250 << 20).unwrap();
    assert!(taken.positions() >= 8_192 && taken.slots < 64, "{taken:?}");
    assert_eq!(
        refused(&sizes, 100 << 20),
        "a context of 8192 tokens does not fit in memory: the longest that fits is 4064"
    );
    let sizes = Sizes { kv_tokens: Some(100_000), ..Sizes::default() };
    assert_eq!(
        refused(&sizes, 1 << 30),
        "parameter 'max_tokens_in_paged_kv_cache' is 100000, the most that fit in memory are 41888"
    );
    let sizes = Sizes { max_num_tokens: Some(100_000), ..Sizes::default() };
    assert!(
        refused(&sizes, 1 << 30)
            .starts_with("steps of 100000 tokens do not fit in memory with a context of 1: ")
    );
    let sizes = Sizes { max_batch_size: Some(5_000), ..Sizes::default() };
    assert!(
        refused(&sizes, 1 << 30)
            .starts_with("max_batch_size 5000 does not fit in memory with steps of 1 tokens")
    );
    let sizes = Sizes { kv_fraction: Some(0.5), ..Sizes::default() };
    assert_eq!(
        refused(&sizes, 2 << 20),
        "2 MiB of memory are free, of which 0.5 may be taken, which is too little for keys and values of one request"
    );
}

#[test]
fn of_a_number_and_a_fraction_the_smaller_holds() {
    let sizes = |kv, fraction| Sizes { kv_tokens: Some(kv), kv_fraction: Some(fraction), ..Sizes::default() };
    assert_eq!(plan(&SMALL, &sizes(64_000, 0.9), 8 << 30).unwrap().positions(), 64_000);
    let taken = plan(&SMALL, &sizes(640_000, 0.5), 8 << 30).unwrap();
    assert!((150_000..200_000).contains(&taken.positions()), "{taken:?}");
}

proptest! {
    /// Without anything asked for a model loads whenever one sequence of one block fits; what is taken fits, too, and each
    /// size that was asked for is what it was asked to be.
    #[test]
    fn whatever_is_free(
        free in 0u64..2 << 30,
        block_bytes in 1u64..4 << 20,
        row_bytes in 1u64..1 << 20,
        vocab_size in 1u64..200_000,
        trained in 1u64..200_000,
        slots in prop::option::of(1usize..100),
        tokens in prop::option::of(1usize..1000),
        context in prop::option::of(1usize..10_000),
    ) {
        let costs = Costs { block_tokens: 32, block_bytes, row_bytes, vocab_size, trained };
        let context = context.map(|n| n.min(trained as usize));
        let sizes = Sizes { max_batch_size: slots, max_num_tokens: tokens, max_context: context, ..Sizes::default() };
        let bytes = |slots: u64, tokens: u64, blocks: u64| {
            blocks * block_bytes + tokens * row_bytes + slots * 12 * vocab_size
        };
        let (slots, tokens) = (slots.map(|n| n as u64), tokens.map(|n| n as u64));
        let (least_slots, least_tokens) = (slots.unwrap_or(1), tokens.unwrap_or(1));
        let least_blocks = least_slots.max(context.unwrap_or(1).div_ceil(32) as u64);
        let possible = bytes(least_slots, least_tokens, least_blocks) <= (free as f64 * LARGEST_SHARE) as u64;
        let taken = plan(&costs, &sizes, free);
        prop_assert_eq!(taken.is_ok(), possible);
        if let Ok(taken) = taken {
            prop_assert!(bytes(taken.slots, taken.step_tokens, taken.blocks) <= free);
            prop_assert!(slots.is_none_or(|n| n == taken.slots) && tokens.is_none_or(|n| n == taken.step_tokens));
            prop_assert!(context.is_none_or(|n| n as u64 <= taken.positions()));
        }
    }
}
