//! The instances of a loaded version, and how they become others while it serves.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};

use trireme_host::Model;
use trireme_scheduling::InstanceId;

use crate::error::ServeError;
use crate::instance::{InstancePlan, PendingInstance, Prepared};
use crate::model::ModelVersion;
use crate::share::{Limiter, Share};
use crate::threads::Threads;
use crate::warmup::Warmup;

/// The instances of a version.
#[derive(Clone)]
pub(crate) struct Fleet {
    /// Held by the instances' threads: with the last of them the model goes.
    model: Weak<Model>,
    terms: Terms,
    members: Vec<InstancePlan>,
}

/// What holds for all instances of a version.
#[derive(Clone)]
pub(crate) struct Terms {
    /// How many unfinished requests one may hold, if the backend has a limit.
    pub(crate) max_in_flight: Option<NonZeroU32>,
    pub(crate) warmup: Arc<Warmup>,
    /// What they wait for, if the server limits rates.
    pub(crate) limiter: Option<Arc<Limiter>>,
}

/// Instances that are made and not yet taken in, and those that are to go.
pub(crate) struct FleetChange {
    fresh: Vec<Prepared>,
    retired: Vec<InstanceId>,
    fleet: Fleet,
}

impl Fleet {
    /// Makes all instances of `plans`, each on the thread that will run it.
    pub(crate) fn create(
        model: &Arc<Model>,
        plans: Vec<InstancePlan>,
        terms: Terms,
        label: &str,
    ) -> Result<(Self, Vec<Prepared>), ServeError> {
        let prepared = create(model, &plans, &terms, label)?;
        Ok((Self { model: Arc::downgrade(model), terms, members: plans }, prepared))
    }

    /// Makes what `wanted` has beyond the instances there are. Those of equal groups on equal devices stay as they are,
    /// whatever their names.
    pub(crate) fn prepare(
        &self,
        wanted: Vec<InstancePlan>,
        version: &ModelVersion,
    ) -> Result<FleetChange, ServeError> {
        let label = format!("{}:{}", version.name(), version.version());
        let Some(model) = self.model.upgrade() else { return Err(version.lost_error()) };
        let (members, mut fresh, retired) = compare(&self.members, wanted);
        for (number, plan) in (version.queue().instances()..).zip(&mut fresh) {
            plan.index = number;
        }
        let prepared = create(&model, &fresh, &self.terms, &label)?;
        let members = members.into_iter().chain(fresh).collect();
        let fleet = Self { members, ..self.clone() };
        Ok(FleetChange { fresh: prepared, retired, fleet })
    }
}

impl FleetChange {
    /// Takes the new instances in and lets the old ones end after what they do now; returns those.
    pub(crate) fn commit(
        self,
        version: &Arc<ModelVersion>,
        threads: &Arc<Threads>,
    ) -> (Fleet, Vec<InstanceId>) {
        let Self { fresh, retired, fleet } = self;
        if !fresh.is_empty() || !retired.is_empty() {
            tracing::info!(
                model = version.name(),
                version = version.version(),
                "{} instances more, {} fewer, in place",
                fresh.len(),
                retired.len()
            );
        }
        version.queue().change_instances(fresh.len(), fleet.terms.max_in_flight, &retired);
        for instance in fresh {
            instance.start(Arc::clone(version), threads.begin(version.generation()));
        }
        (fleet, retired)
    }
}

/// What stays, what is new, and what goes. Those that stay keep their numbers.
fn compare(
    have: &[InstancePlan],
    wanted: Vec<InstancePlan>,
) -> (Vec<InstancePlan>, Vec<InstancePlan>, Vec<InstanceId>) {
    let mut left: Vec<&InstancePlan> = have.iter().collect();
    let (mut stay, mut fresh) = (Vec::new(), Vec::new());
    for plan in wanted {
        match left.iter().position(|other| other.stands_for(&plan)) {
            Some(at) => stay.push(left.remove(at).clone()),
            None => fresh.push(plan),
        }
    }
    (stay, fresh, left.into_iter().map(|plan| InstanceId(plan.index)).collect())
}

/// Makes all instances at once. Those that could never run are refused before any is made.
fn create(
    model: &Arc<Model>,
    plans: &[InstancePlan],
    terms: &Terms,
    label: &str,
) -> Result<Vec<Prepared>, ServeError> {
    let shares = match &terms.limiter {
        Some(limiter) => limiter.enter(plans)?,
        None => plans.iter().map(|_| None).collect(),
    };
    let begin = |(plan, share): (&InstancePlan, Option<Share>)| {
        Prepared::create(Arc::clone(model), plan.clone(), Arc::clone(&terms.warmup), share, label)
    };
    let pending: Vec<_> = plans.iter().zip(shares).map(begin).collect();
    // All of them, also after a failure: the next try must not meet one that is still being made.
    let made: Vec<_> = pending.into_iter().map(|one| one.and_then(PendingInstance::wait)).collect();
    made.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_host::abi::InstanceKind;
    use trireme_model_config::InstanceGroup;

    fn plan(index: u32, host_policy: &str, device: i32) -> InstancePlan {
        let group = InstanceGroup {
            name: String::new(),
            kind: trireme_model_config::InstanceKind::Cpu,
            count: 0,
            gpus: Vec::new(),
            passive: false,
            host_policy: host_policy.to_owned(),
            profile: Vec::new(),
            rate_limiter: trireme_model_config::RateLimiter::default(),
        };
        InstancePlan { name: format!("m_{index}"), group, index, kind: InstanceKind::CPU, device }
    }

    #[test]
    fn instances_alike_stay() {
        let have = [plan(0, "", 0), plan(1, "", 0), plan(5, "x", 0)];
        let numbers = |plans: Vec<InstancePlan>| plans.iter().map(|plan| plan.index).collect::<Vec<_>>();
        let (stay, fresh, gone) = compare(&have, vec![plan(0, "x", 0), plan(1, "", 0), plan(2, "x", 0)]);
        assert_eq!((numbers(stay), numbers(fresh), gone), (vec![5, 0], vec![2], vec![InstanceId(1)]));
        let (stay, fresh, gone) = compare(&have, vec![plan(0, "", 1)]);
        assert_eq!((stay.len(), fresh.len(), gone.len()), (0, 1, 3), "another device");
    }
}
