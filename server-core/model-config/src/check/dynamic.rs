//! The dynamic batcher and the policies of its queues.

use std::collections::BTreeMap;

use trireme_protocol::proto::ModelDynamicBatching;

use super::Checker;
use crate::checked::{DynamicBatching, QueuePolicy, Scheduling};

impl Checker<'_> {
    pub(super) fn dynamic(&mut self, batching: &ModelDynamicBatching, max_batch_size: u32) -> Scheduling {
        if max_batch_size == 0 {
            self.error("dynamic_batching", "dynamic batching needs max_batch_size above 0")
                .help("set max_batch_size, or leave dynamic_batching out");
            return Scheduling::Direct;
        }
        let field = "dynamic_batching.preferred_batch_size";
        let preferred = self.preferred(field, &batching.preferred_batch_size, max_batch_size);
        let default_queue_policy =
            batching.default_queue_policy.as_ref().map(QueuePolicy::from).unwrap_or_default();
        let priority_queue_policy: BTreeMap<u64, QueuePolicy> =
            batching.priority_queue_policy.iter().map(|(level, policy)| (*level, policy.into())).collect();
        let dynamic = DynamicBatching {
            preferred,
            max_queue_delay_us: batching.max_queue_delay_microseconds,
            preserve_ordering: batching.preserve_ordering,
            priority_levels: batching.priority_levels,
            default_priority_level: batching.default_priority_level,
            default_queue_policy,
            priority_queue_policy,
        };
        self.priorities(&dynamic);
        self.ordering(&dynamic);
        self.queue_capabilities(&dynamic);
        Scheduling::Dynamic(dynamic)
    }

    /// Sizes from 1 to `max_batch_size`.
    pub(super) fn preferred(&mut self, field: &str, sizes: &[i32], max_batch_size: u32) -> Vec<u32> {
        let mut preferred = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            match u32::try_from(*size).ok().filter(|size| (1..=max_batch_size).contains(size)) {
                Some(size) => preferred.push(size),
                None => {
                    let message =
                        format!("preferred_batch_size {size} must be 1 to max_batch_size ({max_batch_size})");
                    self.error(&format!("{field}.{number}"), message);
                }
            }
        }
        preferred
    }

    fn priorities(&mut self, dynamic: &DynamicBatching) {
        let (levels, default) = (dynamic.priority_levels, dynamic.default_priority_level);
        if levels > 0 && !(1..=levels).contains(&default) {
            let field = if default == 0 { "priority_levels" } else { "default_priority_level" };
            let message = format!(
                "default_priority_level is {default}; with priority_levels {levels} it must be 1 to {levels}"
            );
            self.error(&format!("dynamic_batching.{field}"), message);
        }
        if levels == 0 {
            self.priorities_without_levels(dynamic);
            return;
        }
        for level in dynamic.priority_queue_policy.keys().filter(|level| !(1..=levels).contains(level)) {
            let message =
                format!("priority_queue_policy is for level {level}, but the levels are 1 to {levels}");
            self.error(&format!("dynamic_batching.priority_queue_policy.{level}"), message);
        }
    }

    fn priorities_without_levels(&mut self, dynamic: &DynamicBatching) {
        if dynamic.default_priority_level > 0 {
            let field = "dynamic_batching.default_priority_level";
            self.warn(field, "without priority_levels, default_priority_level has no effect");
        }
        if !dynamic.priority_queue_policy.is_empty() {
            let field = "dynamic_batching.priority_queue_policy";
            self.warn(field, "without priority_levels, priority_queue_policy has no effect");
        }
    }

    /// Answers cannot keep the order of requests that a rule of the queue puts into another one.
    fn ordering(&mut self, dynamic: &DynamicBatching) {
        if !dynamic.preserve_ordering {
            return;
        }
        let field = "dynamic_batching.preserve_ordering";
        if dynamic.priority_levels > 1 {
            let message = "preserve_ordering cannot be used with more than one priority level";
            self.error(field, message).help("take one of the two out");
        }
        let mut policies = dynamic.priority_queue_policy.values().chain([&dynamic.default_queue_policy]);
        if policies.any(|policy| policy.delay_expired) {
            let message = "preserve_ordering cannot be used with the timeout_action DELAY";
            self.error(field, message).help("use REJECT, or take preserve_ordering out");
        }
    }

    fn queue_capabilities(&mut self, dynamic: &DynamicBatching) {
        let has = *self.capabilities;
        // A single level is the same as none.
        if dynamic.priority_levels > 1 && !has.priority_levels {
            self.error("dynamic_batching.priority_levels", "priority levels are not implemented yet");
        }
        if dynamic.default_queue_policy.limits() && !has.queue_policies {
            self.error("dynamic_batching.default_queue_policy", "queue policies are not implemented yet");
        }
        let of_levels =
            dynamic.priority_levels > 0 && dynamic.priority_queue_policy.values().any(QueuePolicy::limits);
        if of_levels && !has.queue_policies {
            self.error("dynamic_batching.priority_queue_policy", "queue policies are not implemented yet");
        }
        if dynamic.preserve_ordering && !has.preserve_ordering {
            self.error("dynamic_batching.preserve_ordering", "preserve_ordering is not implemented yet");
        }
    }
}
