//! `dynamic_batching` as the batcher needs it.

use crate::policy::Policies;
use crate::start::StartAfter;

/// What is wrong with a [`DynamicConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DynamicConfigError {
    #[error("dynamic_batching.preferred_batch_size must be positive")]
    ZeroPreferred,
    #[error("dynamic_batching.preferred_batch_size {size} is larger than max_batch_size {max}; lower it")]
    PreferredTooLarge { size: u32, max: u32 },
}

/// Limits and preferences of the dynamic batcher, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicConfig {
    max_batch_size: u32,
    /// Sorted, without repeats, never empty.
    preferred: Vec<u32>,
    max_queue_delay_ns: u64,
    policies: Policies,
    start_after: StartAfter,
}

impl DynamicConfig {
    /// From the model configuration's fields. A `max_batch_size` of 0 (no batch dimension) batches as 1; without
    /// preferred sizes the largest batch is the preferred one.
    ///
    /// # Errors
    /// A preferred size of 0 or above `max_batch_size`.
    pub fn new(
        max_batch_size: u32,
        preferred_batch_size: &[u32],
        max_queue_delay_microseconds: u64,
    ) -> Result<Self, DynamicConfigError> {
        let max = max_batch_size.max(1);
        let mut preferred = preferred_batch_size.to_vec();
        preferred.sort_unstable();
        preferred.dedup();
        if preferred.first() == Some(&0) {
            return Err(DynamicConfigError::ZeroPreferred);
        }
        match preferred.last() {
            Some(&size) if size > max => return Err(DynamicConfigError::PreferredTooLarge { size, max }),
            Some(_) => {}
            None => preferred.push(max),
        }
        Ok(Self {
            max_batch_size: max,
            preferred,
            max_queue_delay_ns: max_queue_delay_microseconds.saturating_mul(1_000),
            policies: Policies::default(),
            start_after: StartAfter::default(),
        })
    }

    /// The same with priority levels and queue policies.
    pub fn with_policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// The same, with a first batch that waits for so many requests.
    pub fn with_start_after(self, start_after: StartAfter) -> Self {
        Self { start_after: start_after.without_backlog(), ..self }
    }

    pub(crate) fn start_after(&self) -> StartAfter {
        self.start_after
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub fn max_batch_size(&self) -> u32 {
        self.max_batch_size
    }

    pub fn largest_preferred(&self) -> u32 {
        self.preferred.last().copied().unwrap_or(self.max_batch_size)
    }

    pub fn is_preferred(&self, total: u32) -> bool {
        self.preferred.binary_search(&total).is_ok()
    }

    /// How long the oldest request may be kept for company; 0: not at all.
    pub fn max_queue_delay_ns(&self) -> u64 {
        self.max_queue_delay_ns
    }
}

#[cfg(test)]
mod tests {
    use super::{DynamicConfig, DynamicConfigError};

    #[test]
    fn without_preferred_sizes_the_largest_batch_is_preferred() {
        let config = DynamicConfig::new(16, &[], 7);
        assert_eq!(config, DynamicConfig::new(16, &[16], 7));
        assert_eq!(config.map(|config| config.max_queue_delay_ns()), Ok(7_000));
    }

    #[test]
    fn order_and_repeats_of_preferred_sizes_do_not_matter() {
        assert_eq!(DynamicConfig::new(16, &[8, 4, 8], 0), DynamicConfig::new(16, &[4, 8], 0));
    }

    #[test]
    fn impossible_preferred_sizes_are_refused() {
        assert_eq!(DynamicConfig::new(16, &[4, 0], 0), Err(DynamicConfigError::ZeroPreferred));
        let too_large = DynamicConfigError::PreferredTooLarge { size: 17, max: 16 };
        assert_eq!(DynamicConfig::new(16, &[4, 17], 0), Err(too_large));
    }
}
