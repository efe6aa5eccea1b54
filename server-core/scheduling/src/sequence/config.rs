//! `sequence_batching` as the batchers need it.

use crate::dynamic::{DynamicConfig, DynamicConfigError};
use crate::start::StartAfter;

const DEFAULT_IDLE_US: u64 = 1_000_000;
/// Every slot has its place in memory from the start.
const MAX_SLOTS: u32 = 1 << 20;

/// What is wrong with a configuration of sequences.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SequenceConfigError {
    #[error("sequence_batching.direct.minimum_slot_utilization is {0}; it must be between 0 and 1")]
    Utilization(f32),
    #[error("an instance would have slots for {slots} sequences; {MAX_SLOTS} is the most")]
    TooManySlots { slots: u32 },
    #[error("sequence_batching.oldest.preferred_batch_size must be positive")]
    ZeroPreferred,
    #[error(
        "sequence_batching.oldest.preferred_batch_size {size} is larger than max_batch_size {max}; lower it"
    )]
    PreferredTooLarge { size: u32, max: u32 },
}

/// The direct strategy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectSequenceConfig {
    pub(super) slots: u32,
    pub(super) idle_ns: u64,
    pub(super) max_queue_delay_ns: u64,
    /// So many slots with a request are enough; 0: nobody waits for company.
    pub(super) enough: u32,
    pub(super) start_after: StartAfter,
}

impl DirectSequenceConfig {
    /// From the model configuration's fields. An idle time of 0 is a second.
    ///
    /// # Errors
    /// A utilization that is not between 0 and 1; more than 1,048,576 slots.
    pub fn new(
        max_batch_size: u32,
        max_sequence_idle_microseconds: u64,
        max_queue_delay_microseconds: u64,
        minimum_slot_utilization: f32,
    ) -> Result<Self, SequenceConfigError> {
        let least = minimum_slot_utilization;
        if !(0.0..=1.0).contains(&least) {
            return Err(SequenceConfigError::Utilization(least));
        }
        let slots = checked_slots(max_batch_size.max(1))?;
        let fills = |ready: u32| f64::from(ready) / f64::from(slots) >= f64::from(least);
        // The share times the slots is within one of the answer, whichever way it is rounded.
        let near = (f64::from(least) * f64::from(slots)) as u32;
        let enough = (near.saturating_sub(1)..=slots).find(|&ready| fills(ready)).unwrap_or(slots);
        Ok(Self {
            slots,
            idle_ns: idle_ns(max_sequence_idle_microseconds),
            max_queue_delay_ns: max_queue_delay_microseconds.saturating_mul(1_000),
            enough,
            start_after: StartAfter::default(),
        })
    }

    /// The same, with a first batch that waits for so many requests.
    pub fn with_start_after(self, start_after: StartAfter) -> Self {
        Self { start_after: start_after.checked(), ..self }
    }

    /// Slots of each instance.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

/// The strategy that serves the oldest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestSequenceConfig {
    pub(super) slots: u32,
    pub(super) idle_ns: u64,
    pub(super) batching: DynamicConfig,
}

impl OldestSequenceConfig {
    /// From the model configuration's fields. An idle time of 0 is a second; `max_candidate_sequences` of 0
    /// is `max_batch_size`. `preserve_ordering` is not the batcher's: see [`crate::AnswerOrder`].
    ///
    /// # Errors
    /// A preferred size of 0 or above `max_batch_size`; more than 1,048,576 slots.
    pub fn new(
        max_batch_size: u32,
        max_sequence_idle_microseconds: u64,
        max_candidate_sequences: u32,
        preferred_batch_size: &[u32],
        max_queue_delay_microseconds: u64,
    ) -> Result<Self, SequenceConfigError> {
        let batching = DynamicConfig::new(max_batch_size, preferred_batch_size, max_queue_delay_microseconds)
            .map_err(|error| match error {
                DynamicConfigError::ZeroPreferred => SequenceConfigError::ZeroPreferred,
                DynamicConfigError::PreferredTooLarge { size, max } => {
                    SequenceConfigError::PreferredTooLarge { size, max }
                }
            })?;
        let slots = if max_candidate_sequences > 0 { max_candidate_sequences } else { max_batch_size.max(1) };
        let slots = checked_slots(slots)?;
        Ok(Self { slots, idle_ns: idle_ns(max_sequence_idle_microseconds), batching })
    }

    /// The same, with batchers whose first batch waits for so many requests.
    pub fn with_start_after(self, start_after: StartAfter) -> Self {
        Self { batching: self.batching.with_start_after(start_after), ..self }
    }

    /// Slots of each instance.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

fn checked_slots(slots: u32) -> Result<u32, SequenceConfigError> {
    if slots > MAX_SLOTS { Err(SequenceConfigError::TooManySlots { slots }) } else { Ok(slots) }
}

fn idle_ns(us: u64) -> u64 {
    let us = if us > 0 { us } else { DEFAULT_IDLE_US };
    us.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::{DirectSequenceConfig, OldestSequenceConfig, SequenceConfigError};

    #[test]
    fn a_share_of_the_slots_is_a_number_of_slots() {
        let enough = |slots, share| DirectSequenceConfig::new(slots, 0, 1, share).map(|config| config.enough);
        assert_eq!(enough(4, 0.0), Ok(0));
        assert_eq!(enough(4, 0.1), Ok(1));
        assert_eq!(enough(4, 0.75), Ok(3));
        assert_eq!(enough(4, 0.76), Ok(4));
        assert_eq!(enough(3, 1.0), Ok(3));
        assert_eq!(enough(0, 1.0), Ok(1));
        assert_eq!(enough(4, 1.5), Err(SequenceConfigError::Utilization(1.5)));
        assert!(enough(4, f32::NAN).is_err());
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let direct = DirectSequenceConfig::new(0, 0, 0, 0.0).unwrap();
        assert_eq!((direct.slots, direct.idle_ns), (1, 1_000_000_000));
        assert_eq!(OldestSequenceConfig::new(8, 0, 0, &[], 0).unwrap().slots, 8);
        assert_eq!(OldestSequenceConfig::new(8, 0, 300, &[], 0).unwrap().slots, 300);
        let many = SequenceConfigError::TooManySlots { slots: u32::MAX };
        assert_eq!(OldestSequenceConfig::new(8, 0, u32::MAX, &[], 0), Err(many));
        assert_eq!(OldestSequenceConfig::new(8, 0, 0, &[0], 0), Err(SequenceConfigError::ZeroPreferred));
    }
}
