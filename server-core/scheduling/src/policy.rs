//! Priority levels and queue policies of the dynamic batcher.

use std::collections::BTreeMap;

/// What happens to a request whose timeout passed while it waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It leaves as expired.
    #[default]
    Reject,
    /// It goes behind every request of its level whose timeout has not passed, and has no timeout any more.
    Delay,
}

/// `ModelQueuePolicy`. The default is without limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    pub timeout_action: TimeoutAction,
    /// How long a request may wait, in microseconds; 0: for ever.
    pub default_timeout_microseconds: u64,
    /// Whether a request's own timeout counts. It can only shorten the default, so without a default it has
    /// no effect.
    pub allow_timeout_override: bool,
    /// Requests that may wait in one level, late ones among them; 0: any number.
    pub max_queue_size: u32,
}

impl QueuePolicy {
    /// How long a request that asks for `timeout_us` may wait, in microseconds.
    pub fn timeout_us(&self, timeout_us: Option<u64>) -> Option<u64> {
        let default = self.default_timeout_microseconds;
        let own = timeout_us.filter(|&own| self.allow_timeout_override && own > 0 && own < default);
        own.or((default > 0).then_some(default))
    }
}

/// What is wrong with a set of [`Policies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error(
        "dynamic_batching.default_priority_level is {level}; it must be between 1 and priority_levels, {levels}"
    )]
    DefaultLevel { level: u64, levels: u64 },
    #[error("dynamic_batching.priority_queue_policy names level {level}; the levels are 1 to {levels}")]
    UnknownLevel { level: u64, levels: u64 },
}

/// The levels of a queue and the policy of each, checked. Level 1 is served first. The default is one level
/// without limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    levels: u64,
    default_level: u64,
    default: QueuePolicy,
    by_level: BTreeMap<u64, QueuePolicy>,
}

impl Policies {
    /// From the model configuration's fields. With `priority_levels` of 0 there is one level, which has the
    /// default policy; the other fields then have no effect.
    ///
    /// # Errors
    /// A default level or a level with a policy that is not one of the levels.
    pub fn new(
        priority_levels: u64,
        default_priority_level: u64,
        default_queue_policy: QueuePolicy,
        priority_queue_policy: impl IntoIterator<Item = (u64, QueuePolicy)>,
    ) -> Result<Self, PolicyError> {
        let levels = priority_levels;
        if levels == 0 {
            return Ok(Self { default: default_queue_policy, ..Self::default() });
        }
        if !(1..=levels).contains(&default_priority_level) {
            return Err(PolicyError::DefaultLevel { level: default_priority_level, levels });
        }
        let by_level: BTreeMap<_, _> = priority_queue_policy.into_iter().collect();
        if let Some(&level) = by_level.keys().find(|level| !(1..=levels).contains(level)) {
            return Err(PolicyError::UnknownLevel { level, levels });
        }
        Ok(Self { levels, default_level: default_priority_level, default: default_queue_policy, by_level })
    }

    /// The level of a request: the default one for priority 0 and for a priority that is no level.
    pub fn level_of(&self, priority: u64) -> u64 {
        if (1..=self.levels).contains(&priority) { priority } else { self.default_level }
    }

    pub fn policy_of(&self, level: u64) -> &QueuePolicy {
        self.by_level.get(&level).unwrap_or(&self.default)
    }

    /// Whether requests can be served in another order than that of arrival.
    pub fn reorders(&self) -> bool {
        let delays = |policy: &QueuePolicy| policy.timeout_action == TimeoutAction::Delay;
        self.levels > 1 || delays(&self.default) || self.by_level.values().any(delays)
    }
}

#[cfg(test)]
mod tests {
    use super::{Policies, PolicyError, QueuePolicy};

    #[test]
    fn a_request_can_only_shorten_its_timeout_and_only_if_allowed() {
        let timeout = |default, allow, own| {
            let policy = QueuePolicy {
                default_timeout_microseconds: default,
                allow_timeout_override: allow,
                ..QueuePolicy::default()
            };
            policy.timeout_us(own)
        };
        assert_eq!(timeout(100, true, Some(40)), Some(40));
        assert_eq!(timeout(100, true, Some(400)), Some(100));
        assert_eq!(timeout(100, true, Some(0)), Some(100));
        assert_eq!(timeout(100, true, None), Some(100));
        assert_eq!(timeout(100, false, Some(40)), Some(100));
        assert_eq!(timeout(0, true, Some(40)), None);
    }

    #[test]
    fn a_priority_that_is_no_level_means_the_default_level() {
        let policies = Policies::new(3, 2, QueuePolicy::default(), []).unwrap();
        assert_eq!([0, 1, 2, 3, 4, u64::MAX].map(|p| policies.level_of(p)), [2, 1, 2, 3, 2, 2]);
        assert_eq!([0, 1, 7].map(|p| Policies::default().level_of(p)), [0, 0, 0]);
    }

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        let policy = QueuePolicy::default();
        let refused = |level, of| Policies::new(2, level, policy, of).unwrap_err();
        assert_eq!(refused(0, None), PolicyError::DefaultLevel { level: 0, levels: 2 });
        assert_eq!(refused(3, None), PolicyError::DefaultLevel { level: 3, levels: 2 });
        assert_eq!(refused(1, Some((0, policy))), PolicyError::UnknownLevel { level: 0, levels: 2 });
        assert_eq!(refused(1, Some((3, policy))), PolicyError::UnknownLevel { level: 3, levels: 2 });
        assert_eq!(Policies::new(0, 9, policy, Some((3, policy))), Ok(Policies::default()));
    }
}
