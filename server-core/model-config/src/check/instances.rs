//! Groups of instances.

use std::collections::{BTreeMap, BTreeSet};

use trireme_protocol::proto;
use trireme_protocol::proto::model_instance_group::Kind;

use super::Checker;
use crate::checked::{InstanceGroup, InstanceKind, RateLimiter, RateResource};

/// Instances of one group; more is a mistake.
const MAX_COUNT: i32 = 1024;

impl Checker<'_> {
    pub(super) fn instance_groups(&mut self) -> Vec<InstanceGroup> {
        let config = self.config;
        let mut groups = Vec::new();
        if self.is_ensemble() {
            return groups;
        }
        for (number, group) in config.instance_group.iter().enumerate() {
            groups.extend(self.instance_group(&format!("instance_group.{number}"), group));
        }
        self.resources();
        groups
    }

    fn instance_group(&mut self, path: &str, group: &proto::ModelInstanceGroup) -> Option<InstanceGroup> {
        let (name, has) = (&group.name, *self.capabilities);
        let count = u32::try_from(group.count).ok().filter(|_| (1..=MAX_COUNT).contains(&group.count));
        if count.is_none() {
            let message =
                format!("instance group '{name}' has count {}; it must be 1 to {MAX_COUNT}", group.count);
            self.error(&format!("{path}.count"), message);
        }
        let kind = match group.kind() {
            Kind::Auto => InstanceKind::Auto,
            Kind::Gpu => InstanceKind::Gpu,
            Kind::Cpu => InstanceKind::Cpu,
            Kind::Model => InstanceKind::Model,
        };
        let gpus = format!("{path}.gpus");
        if !group.gpus.is_empty() && matches!(kind, InstanceKind::Cpu | InstanceKind::Model) {
            self.error(&gpus, format!("instance group '{name}' lists gpus, but its kind is not KIND_GPU"));
        }
        if let Some(gpu) = group.gpus.iter().find(|gpu| **gpu < 0) {
            self.error(&gpus, format!("instance group '{name}' lists the GPU {gpu}; they count from 0"));
        }
        let different: BTreeSet<i32> = group.gpus.iter().copied().collect();
        if different.len() < group.gpus.len() {
            self.warn(
                &gpus,
                format!("instance group '{name}' lists a GPU twice, which doubles its instances there"),
            )
            .help("`count` says how many instances each GPU has");
        }
        if group.rate_limiter.is_some() && !has.rate_limiter {
            self.warn(
                &format!("{path}.rate_limiter"),
                "the rate limiter is off (--rate-limit): this has no effect",
            );
        }
        if !group.host_policy.is_empty() && !has.host_policies {
            self.warn(
                &format!("{path}.host_policy"),
                "host policies are not implemented: this has no effect",
            );
        }
        if !group.secondary_devices.is_empty() && !has.secondary_devices {
            self.error(&format!("{path}.secondary_devices"), "secondary devices are not implemented");
        }
        Some(InstanceGroup {
            name: name.clone(),
            kind,
            count: count?,
            gpus: group.gpus.clone(),
            passive: group.passive,
            host_policy: group.host_policy.clone(),
            profile: group.profile.clone(),
            rate_limiter: rate_limiter(group),
        })
    }

    /// A resource of the rate limiter is either one pool for all devices or one for each.
    fn resources(&mut self) {
        let config = self.config;
        let mut scopes: BTreeMap<&str, bool> = BTreeMap::new();
        for (number, group) in config.instance_group.iter().enumerate() {
            let resources = group.rate_limiter.iter().flat_map(|limiter| &limiter.resources);
            for (place, resource) in resources.enumerate() {
                let path = format!("instance_group.{number}.rate_limiter.resources.{place}");
                if resource.name.is_empty() {
                    self.error(&path, "a resource of the rate limiter has no name");
                } else if *scopes.entry(&resource.name).or_insert(resource.global) != resource.global {
                    let message =
                        format!("resource '{}' is global in one place and not in another", resource.name);
                    self.error(&path, message);
                }
            }
        }
    }
}

fn rate_limiter(group: &proto::ModelInstanceGroup) -> RateLimiter {
    let Some(limiter) = &group.rate_limiter else { return RateLimiter::default() };
    let resource = |one: &proto::model_rate_limiter::Resource| RateResource {
        name: one.name.clone(),
        global: one.global,
        count: one.count,
    };
    RateLimiter { resources: limiter.resources.iter().map(resource).collect(), priority: limiter.priority }
}
