//! What instances need of which resource, and how much of it there is.

use std::collections::BTreeMap;

/// A resource that an instance takes for each of its executions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: String,
    /// One pool for all devices; otherwise each device has its own.
    pub global: bool,
    pub count: u32,
}

/// What an instance needs to run, and how often it comes to its turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The device that the instance runs on, for resources that are not global.
    pub device: i32,
    /// A resource that is named twice is needed as often as both say.
    pub resources: Vec<Resource>,
    /// An instance of priority 2 has half the turns of one of priority 1. 0 counts as 1.
    pub priority: u32,
}

/// A pool of a resource: that of a device, or the global one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub name: String,
    /// None: the global one.
    pub device: Option<i32>,
}

impl Demand {
    /// The pools that it takes from, each once, and how much.
    pub(super) fn places(&self) -> BTreeMap<Place, u32> {
        let mut places = BTreeMap::new();
        for Resource { name, global, count } in self.resources.iter().filter(|one| one.count > 0) {
            let place = Place { name: name.clone(), device: (!global).then_some(self.device) };
            let sum: &mut u32 = places.entry(place).or_default();
            *sum = sum.saturating_add(*count);
        }
        places
    }
}

/// How much there is of each resource, where somebody has said so. If anything is said, there is nothing of what is
/// not named; if nothing is, there is as much of each as the instance needs that needs most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supplies(BTreeMap<Place, u32>);

impl Supplies {
    /// `count` of a resource, on one device, or on each and globally. The smaller one counts of two for the same.
    pub fn add(&mut self, name: &str, device: Option<i32>, count: u32) {
        let given = self.0.entry(Place { name: name.to_owned(), device }).or_insert(count);
        *given = count.min(*given);
    }

    /// How much is there for a pool, if anything was said.
    pub(super) fn of(&self, place: &Place) -> Option<u32> {
        if self.0.is_empty() {
            return None;
        }
        let anywhere = || self.0.get(&Place { name: place.name.clone(), device: None });
        Some(self.0.get(place).or_else(anywhere).copied().unwrap_or(0))
    }
}

/// Why instances cannot be let in. The words are the protocol's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error(
        "Resource count for \"{name}\" is limited to {there} which will prevent scheduling of one or more model \
         instances, the minimum required count is {needed}"
    )]
    TooFew { name: String, there: u32, needed: u32 },
    #[error(
        "Resource \"{name}\" is present as both global and device-specific resource in the model configuration."
    )]
    TwoScopes { name: String },
}
