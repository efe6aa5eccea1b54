//! The configuration of one load of a model: at random, as a line of text, as a dispatcher.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use super::random::Random;
use crate::invariants::{Rules, Strategy};
use crate::{
    Direct, DirectSequenceConfig, DirectSequences, Dispatcher, Dynamic, DynamicConfig, InstanceSlots,
    OldestSequenceConfig, OldestSequences, Policies, QueuePolicy, TimeoutAction,
};

/// Levels and queue policies as the configuration has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels {
    pub levels: u64,
    pub level: u64,
    pub queue: QueuePolicy,
    pub by_level: BTreeMap<u64, QueuePolicy>,
}

/// Times are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Direct,
    Dynamic {
        max: u32,
        preferred: Vec<u32>,
        delay: u64,
        levels: Levels,
    },
    /// Sequences, direct strategy; the share is in hundredths.
    Rows {
        max: u32,
        idle: u64,
        delay: u64,
        share: u32,
    },
    Oldest {
        max: u32,
        idle: u64,
        candidates: u32,
        preferred: Vec<u32>,
        delay: u64,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub kind: Kind,
    pub instances: u32,
    /// Requests that an instance may hold; 0: any number.
    pub in_flight: u32,
    /// Instances ask for work; otherwise the dispatcher is polled.
    pub pull: bool,
    /// It is polled once when all of an instant has happened, not after every event.
    pub lazy: bool,
    /// It is woken so many milliseconds after it asked to be.
    pub late: u64,
    /// Answers leave in the order of arrivals.
    pub ordered: bool,
    /// Answers are cached.
    pub cached: bool,
}

/// The configuration is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

impl Plan {
    pub(super) fn random(random: &mut Random) -> Self {
        let delay = if random.chance(300) { 0 } else { random.between(1, 40) };
        let kind = match random.below(10) {
            0 => Kind::Direct,
            1..=5 => {
                let max = random.small(1, 20);
                Kind::Dynamic {
                    max,
                    preferred: preferred(random, max),
                    delay,
                    levels: Levels::random(random),
                }
            }
            6..=7 => Kind::Rows {
                max: random.small(1, 5),
                idle: random.between(1, 120),
                delay,
                share: random.pick(&[0, 25, 50, 75, 100]),
            },
            _ => {
                let max = random.small(1, 5);
                let (idle, candidates) = (random.between(1, 120), random.small(0, 6));
                Kind::Oldest { max, idle, candidates, preferred: preferred(random, max), delay }
            }
        };
        let pull = random.chance(500);
        Self {
            instances: random.small(1, 4),
            in_flight: if random.chance(600) { 0 } else { random.small(1, 12) },
            pull,
            lazy: !pull && random.chance(300),
            late: if random.chance(200) { random.between(1, 20) } else { 0 },
            ordered: random.chance(300),
            cached: random.chance(120) && !kind.has_sequences(),
            kind,
        }
    }

    /// # Errors
    /// The configuration is refused.
    pub(super) fn dispatcher(&self) -> Result<Dispatcher, PlanError> {
        let slots = InstanceSlots::new(self.instances, self.max_in_flight());
        Ok(match &self.kind {
            Kind::Direct => Dispatcher::new(Direct::new(), slots),
            Kind::Dynamic { max, preferred, delay, levels } => {
                let config = DynamicConfig::new(*max, preferred, delay * 1_000).map_err(refused)?;
                Dispatcher::new(Dynamic::new(config.with_policies(levels.policies()?)), slots)
            }
            Kind::Rows { max, idle, delay, share } => {
                let share = *share as f32 / 100.0;
                let config = DirectSequenceConfig::new(*max, idle * 1_000, delay * 1_000, share);
                Dispatcher::new(DirectSequences::new(config.map_err(refused)?), slots)
            }
            Kind::Oldest { max, idle, candidates, preferred, delay } => {
                let (idle, delay) = (idle * 1_000, delay * 1_000);
                let config = OldestSequenceConfig::new(*max, idle, *candidates, preferred, delay);
                Dispatcher::new(OldestSequences::new(config.map_err(refused)?), slots)
            }
        })
    }

    /// # Errors
    /// The configuration is refused.
    pub(super) fn rules(&self) -> Result<Rules, PlanError> {
        let (strategy, max_batch_size) = match &self.kind {
            Kind::Direct => (Strategy::Single, 1),
            Kind::Dynamic { max, .. } => (Strategy::Dynamic, *max),
            Kind::Rows { max, .. } => (Strategy::DirectSequences, *max),
            Kind::Oldest { max, .. } => (Strategy::OldestSequences, *max),
        };
        let policies = match &self.kind {
            Kind::Dynamic { levels, .. } => levels.policies()?,
            _ => Policies::default(),
        };
        let max_in_flight = self.max_in_flight().map(|max| max.get() as usize);
        Ok(Rules { strategy, max_batch_size, policies, max_in_flight })
    }

    pub(super) fn max_in_flight(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.in_flight)
    }

    /// How long the head of the queue may wait beside a free instance, in milliseconds; none with sequences.
    pub(super) fn head_delay(&self) -> Option<u64> {
        match &self.kind {
            Kind::Direct => Some(0),
            Kind::Dynamic { delay, .. } => Some(*delay),
            Kind::Rows { .. } | Kind::Oldest { .. } => None,
        }
    }
}

impl Plan {
    /// Sequences: nobody is kept for company.
    pub(super) fn never_waits(&self) -> bool {
        match self.kind {
            Kind::Rows { delay, share, .. } => delay == 0 || share == 0,
            Kind::Oldest { delay, .. } => delay == 0,
            Kind::Direct | Kind::Dynamic { .. } => false,
        }
    }
}

impl Kind {
    pub(super) fn has_sequences(&self) -> bool {
        matches!(self, Self::Rows { .. } | Self::Oldest { .. })
    }

    /// Elements of the largest request; none without a limit.
    pub(super) fn max_size(&self) -> Option<u32> {
        match self {
            Self::Direct => None,
            Self::Dynamic { max, .. } => Some((*max).max(1)),
            Self::Rows { .. } | Self::Oldest { .. } => Some(1),
        }
    }
}

impl Levels {
    /// In half of all cases without effect.
    fn random(random: &mut Random) -> Self {
        if random.chance(500) {
            return Self::default();
        }
        let levels = random.below(5);
        let level = if levels > 0 { random.between(1, levels) } else { 0 };
        let named = if levels > 0 { random.below(levels.min(3) + 1) } else { 0 };
        let queue = policy(random);
        let by_level = (0..named).map(|_| (random.between(1, levels), policy(random))).collect();
        Self { levels, level, queue, by_level }
    }

    fn policies(&self) -> Result<Policies, PlanError> {
        let by_level = self.by_level.iter().map(|(level, policy)| (*level, *policy));
        Policies::new(self.levels, self.level, self.queue, by_level).map_err(refused)
    }
}

fn refused(error: impl fmt::Display) -> PlanError {
    PlanError(error.to_string())
}

fn preferred(random: &mut Random, max: u32) -> Vec<u32> {
    (0..random.below(4)).map(|_| random.small(1, max)).collect()
}

fn policy(random: &mut Random) -> QueuePolicy {
    QueuePolicy {
        timeout_action: if random.chance(500) { TimeoutAction::Reject } else { TimeoutAction::Delay },
        default_timeout_microseconds: if random.chance(500) { random.between(1, 60) * 1_000 } else { 0 },
        allow_timeout_override: random.chance(500),
        max_queue_size: if random.chance(660) { 0 } else { random.small(1, 9) },
    }
}

fn list(sizes: &[u32]) -> String {
    sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn policy_text(policy: &QueuePolicy) -> String {
    let mut words = vec![match policy.timeout_action {
        TimeoutAction::Reject => "reject".to_owned(),
        TimeoutAction::Delay => "delay".to_owned(),
    }];
    if policy.default_timeout_microseconds > 0 {
        words.push(format!("{}ms", policy.default_timeout_microseconds / 1_000));
    }
    if policy.allow_timeout_override {
        words.push("override".to_owned());
    }
    if policy.max_queue_size > 0 {
        words.push(format!("max={}", policy.max_queue_size));
    }
    words.join(",")
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.levels > 0 {
            write!(f, " levels={} level={}", self.levels, self.level)?;
        }
        if self.queue != QueuePolicy::default() {
            write!(f, " queue={}", policy_text(&self.queue))?;
        }
        self.by_level
            .iter()
            .try_for_each(|(level, policy)| write!(f, " queue{level}={}", policy_text(policy)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preferred = |f: &mut fmt::Formatter<'_>, sizes: &[u32]| match sizes {
            [] => Ok(()),
            sizes => write!(f, " preferred={}", list(sizes)),
        };
        match self {
            Self::Direct => write!(f, "direct"),
            Self::Dynamic { max, preferred: sizes, delay, levels } => {
                write!(f, "dynamic max={max}")?;
                preferred(f, sizes)?;
                write!(f, " delay={delay}ms{levels}")
            }
            Self::Rows { max, idle, delay, share } => {
                write!(f, "rows max={max} idle={idle}ms delay={delay}ms share={}", *share as f32 / 100.0)
            }
            Self::Oldest { max, idle, candidates, preferred: sizes, delay } => {
                write!(f, "oldest max={max} idle={idle}ms candidates={candidates}")?;
                preferred(f, sizes)?;
                write!(f, " delay={delay}ms")
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instances={}", self.kind, self.instances)?;
        if self.in_flight > 0 {
            write!(f, " in_flight={}", self.in_flight)?;
        }
        if self.late > 0 {
            write!(f, " late={}ms", self.late)?;
        }
        let words =
            [(self.pull, "pull"), (self.lazy, "lazy"), (self.ordered, "ordered"), (self.cached, "cached")];
        words.iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(f, " {word}"))
    }
}
