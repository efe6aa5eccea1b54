//! Shape profiles: the shapes that a model's steps may have, as TensorRT states them.
//!
//! A profile gives `min`, `opt` and `max` for each of two axes, the rows of a step and its sequences. A shape outside
//! of every profile is an error that says what is allowed; one inside takes the smallest bucket that covers it. With
//! `min = opt = max` an axis is static and has one bucket.

mod ladder;
mod memory;

pub use ladder::ladder;
pub use memory::{DoesNotFit, MemoryNeeds, MemoryPlan};

use std::fmt;

use crate::executor::Bucket;

/// One axis of a profile, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisRange {
    pub min: u32,
    /// The size to be fastest at: always a bucket.
    pub opt: u32,
    pub max: u32,
}

/// Shapes that are prepared together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub tokens: AxisRange,
    pub batch: AxisRange,
}

/// The profiles of a model. Without any, every shape is allowed and none is rounded up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileSet {
    profiles: Vec<Ladders>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ladders {
    profile: Profile,
    tokens: Vec<u32>,
    batch: Vec<u32>,
}

/// A profile or a shape that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("profile {index}: {axis} has min {}, opt {} and max {}, they must be at least 1 and grow in this order", range.min, range.opt, range.max)]
    BadRange { index: usize, axis: &'static str, range: AxisRange },
    #[error(
        "a step of {tokens} tokens and {batch} sequences is outside of the model's shape profiles: {allowed}"
    )]
    Outside { tokens: u32, batch: u32, allowed: String },
    #[error("max_batch_size is {asked}, the shape profiles allow at most {largest}")]
    BatchTooLarge { asked: usize, largest: u32 },
}

impl AxisRange {
    /// One size only.
    pub fn fixed(size: u32) -> Self {
        Self { min: size, opt: size, max: size }
    }

    fn contains(self, size: u32) -> bool {
        (self.min..=self.max).contains(&size)
    }

    fn is_sound(self) -> bool {
        1 <= self.min && self.min <= self.opt && self.opt <= self.max
    }
}

impl fmt::Display for AxisRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

impl ProfileSet {
    /// # Errors
    /// If an axis does not grow from `min` over `opt` to `max`.
    pub fn new(profiles: &[Profile]) -> Result<Self, ProfileError> {
        let ladders = profiles.iter().enumerate().map(|(index, &profile)| {
            for (axis, range) in [("tokens", profile.tokens), ("batch", profile.batch)] {
                if !range.is_sound() {
                    return Err(ProfileError::BadRange { index, axis, range });
                }
            }
            Ok(Ladders { profile, tokens: ladder(profile.tokens), batch: ladder(profile.batch) })
        });
        Ok(Self { profiles: ladders.collect::<Result<_, _>>()? })
    }

    pub fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    pub fn profiles(&self) -> impl Iterator<Item = Profile> {
        self.profiles.iter().map(|l| l.profile)
    }

    /// Every bucket, each once, the largest first: the order in which graphs are captured.
    pub fn buckets(&self) -> Vec<Bucket> {
        let one = |l: &Ladders| {
            let pairs = l.tokens.iter().flat_map(|&tokens| l.batch.iter().map(move |&batch| (tokens, batch)));
            // A sequence in a step has a row at least.
            pairs.filter(|(tokens, batch)| batch <= tokens).collect::<Vec<_>>()
        };
        let mut all: Vec<Bucket> =
            self.profiles.iter().flat_map(one).map(|(tokens, batch)| Bucket { tokens, batch }).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.dedup();
        all
    }

    /// The smallest bucket that covers a shape: the fewest tokens, then the fewest sequences. `None` if there are no
    /// profiles.
    ///
    /// # Errors
    /// [`ProfileError::Outside`] if no profile contains the shape.
    pub fn select(&self, tokens: u32, batch: u32) -> Result<Option<Bucket>, ProfileError> {
        if self.profiles.is_empty() {
            return Ok(None);
        }
        let containing = self
            .profiles
            .iter()
            .filter(|l| l.profile.tokens.contains(tokens) && l.profile.batch.contains(batch));
        let best = containing.filter_map(|l| l.cover(tokens, batch)).min();
        best.map(Some).ok_or_else(|| self.outside(tokens, batch))
    }

    /// The bucket for a step of this many rows, which is padded up to a profile's `min` where it has fewer.
    ///
    /// # Errors
    /// [`ProfileError::Outside`] if no profile reaches so far.
    pub fn cover(&self, tokens: u32, batch: u32) -> Result<Option<Bucket>, ProfileError> {
        if self.profiles.is_empty() {
            return Ok(None);
        }
        let best = self.profiles.iter().filter_map(|l| l.cover(tokens, batch)).min();
        best.map(Some).ok_or_else(|| self.outside(tokens, batch))
    }

    /// Most rows that a step of `batch` sequences may have; `None` if no profile takes so many sequences.
    pub fn max_tokens(&self, batch: u32) -> Option<u32> {
        if self.profiles.is_empty() {
            return Some(u32::MAX);
        }
        self.profiles.iter().filter(|l| batch <= l.profile.batch.max).map(|l| l.profile.tokens.max).max()
    }

    /// Most sequences of a step.
    pub fn max_batch(&self) -> u32 {
        if self.profiles.is_empty() {
            return u32::MAX;
        }
        self.profiles.iter().map(|l| l.profile.batch.max.min(l.profile.tokens.max)).max().unwrap_or(0)
    }

    /// Whether the profiles take a batch of this size.
    ///
    /// # Errors
    /// [`ProfileError::BatchTooLarge`] with the largest one that they take.
    pub fn check_batch(&self, max_batch_size: usize) -> Result<(), ProfileError> {
        let largest = self.max_batch();
        if max_batch_size > largest as usize {
            return Err(ProfileError::BatchTooLarge { asked: max_batch_size, largest });
        }
        Ok(())
    }

    fn outside(&self, tokens: u32, batch: u32) -> ProfileError {
        let one = |l: &Ladders| format!("{} tokens with {} sequences", l.profile.tokens, l.profile.batch);
        let allowed = self.profiles.iter().map(one).collect::<Vec<_>>().join(", or ");
        ProfileError::Outside { tokens, batch, allowed }
    }
}

impl Ladders {
    fn cover(&self, tokens: u32, batch: u32) -> Option<Bucket> {
        let up = |ladder: &[u32], size: u32| ladder.get(ladder.partition_point(|&s| s < size)).copied();
        Some(Bucket { tokens: up(&self.tokens, tokens)?, batch: up(&self.batch, batch)? })
    }
}

#[cfg(test)]
mod tests;
