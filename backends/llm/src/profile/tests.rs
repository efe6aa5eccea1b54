#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use expect_test::expect;
use proptest::prelude::*;

fn range(min: u32, opt: u32, max: u32) -> AxisRange {
    AxisRange { min, opt, max }
}

fn set(profiles: &[(AxisRange, AxisRange)]) -> ProfileSet {
    let profiles: Vec<Profile> = profiles.iter().map(|&(tokens, batch)| Profile { tokens, batch }).collect();
    ProfileSet::new(&profiles).unwrap()
}

fn bucket(tokens: u32, batch: u32) -> Option<Bucket> {
    Some(Bucket { tokens, batch })
}

#[test]
fn buckets_of_an_axis() {
    assert_eq!(ladder(range(1, 4, 40)), (1..=16).chain([24, 32, 40]).collect::<Vec<_>>());
    assert_eq!(
        ladder(range(100, 150, 300)),
        [100, 104, 112, 120, 128, 144, 150, 160, 176, 192, 208, 224, 240, 256, 288, 300]
    );
    assert_eq!(ladder(AxisRange::fixed(7)), [7]);
    assert_eq!(ladder(range(900, 1000, 1500)), [900, 960, 1000, 1024, 1280, 1500]);
    assert_eq!(*ladder(range(1, 1, u32::MAX / 512)).last().unwrap(), u32::MAX / 512);
}

#[test]
fn inside_takes_the_smallest_and_outside_says_what_is_allowed() {
    let set = set(&[(range(1, 64, 64), range(1, 8, 16)), (range(64, 128, 512), range(1, 1, 4))]);
    assert_eq!(set.select(17, 3).unwrap(), bucket(24, 3));
    assert_eq!(set.select(65, 3).unwrap(), bucket(72, 3));
    // In both: the fewest tokens.
    assert_eq!(set.select(64, 4).unwrap(), bucket(64, 4));
    expect!["a step of 65 tokens and 5 sequences is outside of the model's shape profiles: 1 to 64 tokens with 1 to 16 sequences, or 64 to 512 tokens with 1 to 4 sequences"]
        .assert_eq(&set.select(65, 5).unwrap_err().to_string());
    assert_eq!((set.max_tokens(4), set.max_tokens(5), set.max_tokens(17)), (Some(512), Some(64), None));
    expect!["max_batch_size is 20, the shape profiles allow at most 16"]
        .assert_eq(&set.check_batch(20).unwrap_err().to_string());
}

#[test]
fn a_static_profile_pads_its_steps() {
    let set = set(&[(AxisRange::fixed(32), AxisRange::fixed(8))]);
    assert_eq!(set.cover(3, 2).unwrap(), bucket(32, 8));
    assert!(set.cover(33, 2).is_err());
    // As TensorRT has it, a shape below the minimum is outside.
    expect!["a step of 3 tokens and 2 sequences is outside of the model's shape profiles: 32 tokens with 8 sequences"]
        .assert_eq(&set.select(3, 2).unwrap_err().to_string());
    assert_eq!(set.buckets(), [Bucket { tokens: 32, batch: 8 }]);
}

#[test]
fn unsound_ranges_are_named() {
    let profile = Profile { tokens: range(1, 8, 4), batch: AxisRange::fixed(1) };
    expect!["profile 0: tokens has min 1, opt 8 and max 4, they must be at least 1 and grow in this order"]
        .assert_eq(&ProfileSet::new(&[profile]).unwrap_err().to_string());
    assert_eq!(ProfileSet::default().select(1_000_000, 9).unwrap(), None);
}

const NEEDS: MemoryNeeds = MemoryNeeds {
    available: 10_000,
    weights: 4_000,
    per_token: 2,
    per_sequence: 10,
    block_bytes: 100,
    block_tokens: 16,
};

#[test]
fn what_does_not_fit_names_the_largest() {
    let error = |n: MemoryNeeds, t, b, c| n.plan(t, b, c).unwrap_err().to_string();
    expect!["max_batch_size 64 does not fit in memory with steps of 512 tokens and a context of 320: the largest that fits is 45"]
        .assert_eq(&error(NEEDS, 512, 64, 320));
    expect!["steps of 4000 tokens do not fit in memory with a context of 320: the most that fit are 1995"]
        .assert_eq(&error(NEEDS, 4000, 1, 320));
    expect!["a context of 2000 tokens does not fit in memory: the longest that fits is 944"]
        .assert_eq(&error(NEEDS, 1, 1, 2000));
    expect!["the weights take 4000 bytes, 10 are available"].assert_eq(&error(
        MemoryNeeds { available: 10, ..NEEDS },
        1,
        1,
        1,
    ));
    let plan = NEEDS.plan(512, 45, 320).unwrap();
    assert_eq!(plan, MemoryPlan { workspace_bytes: 1474, num_blocks: 45, kv_bytes: 4500 });
}

fn axis() -> impl Strategy<Value = AxisRange> {
    (1u32..700, 0u32..700, 0u32..700).prop_map(|(min, a, b)| range(min, min + a.min(b), min + a.max(b)))
}

proptest! {
    /// A shape is refused exactly if no profile contains it; else its bucket covers it, lies in a profile that contains
    /// it, and no bucket of such a profile is smaller.
    #[test]
    fn the_bucket_is_the_smallest_that_covers(
        profiles in prop::collection::vec((axis(), axis()), 1..4), tokens in 1u32..1500, batch in 1u32..1500,
    ) {
        let set = set(&profiles);
        let inside = |&&(t, b): &&(AxisRange, AxisRange)| t.contains(tokens) && b.contains(batch);
        match set.select(tokens, batch) {
            Err(_) => prop_assert!(profiles.iter().find(inside).is_none()),
            Ok(bucket) => {
                let bucket = bucket.unwrap();
                prop_assert!(bucket.tokens >= tokens && bucket.batch >= batch);
                for (t, b) in profiles.iter().filter(inside) {
                    let cover = |axis: AxisRange, size: u32| ladder(axis).into_iter().find(|&s| s >= size).unwrap();
                    let other = Bucket { tokens: cover(*t, tokens), batch: cover(*b, batch) };
                    prop_assert!(bucket <= other);
                }
                prop_assert!(profiles.iter().filter(inside).any(|(t, b)| t.contains(bucket.tokens) && b.contains(bucket.batch)));
                // The same shape, filled up, takes the same bucket.
                prop_assert_eq!(set.select(bucket.tokens, bucket.batch).unwrap(), Some(bucket));
            }
        }
        if let Ok(Some(bucket)) = set.cover(tokens, batch) {
            prop_assert!(bucket.tokens >= tokens && bucket.batch >= batch);
            prop_assert!(set.max_tokens(batch).unwrap() >= tokens);
        } else {
            prop_assert!(set.max_tokens(batch).is_none_or(|most| most < tokens));
        }
    }

    /// The largest that is named fits, and one more does not.
    #[test]
    fn the_largest_is_exact(available in 0u64..50_000, batch in 1u64..500, tokens in 1u64..2000, context in 1u64..4000) {
        let needs = MemoryNeeds { available, ..NEEDS };
        match needs.plan(tokens, batch, context) {
            Ok(plan) => prop_assert!(4_000 + plan.workspace_bytes + plan.kv_bytes <= available && plan.num_blocks >= batch),
            Err(DoesNotFit::Batch { largest, .. }) => {
                prop_assert!(largest == 0 || needs.plan(tokens, largest, context).is_ok());
                prop_assert!(needs.plan(tokens, largest + 1, context).is_err());
            }
            Err(DoesNotFit::Tokens { largest, .. }) => {
                prop_assert!(largest == 0 || needs.plan(largest, 1, context).is_ok());
                prop_assert!(needs.plan(largest + 1, 1, context).is_err());
            }
            Err(DoesNotFit::Context { largest, .. }) => {
                prop_assert!(largest == 0 || needs.plan(1, 1, largest).is_ok());
                prop_assert!(needs.plan(1, 1, largest + 1).is_err());
            }
            Err(DoesNotFit::Weights { .. }) => prop_assert!(available < 4_000),
        }
    }
}
