//! What a loaded model was made of, and what has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use trireme_model_config::Draft;
use trireme_protocol::proto::ModelConfig;
use trireme_repository::{Fingerprint, FoundModel, Stamp};

use super::target::Override;
use crate::load::VersionFleet;

/// What the versions that serve were made of.
pub(crate) struct Origin {
    pub(crate) found: FoundModel,
    /// The state of the directory just before it was read.
    pub(crate) fingerprint: Fingerprint,
    /// The configuration as it was written, with defaults.
    pub(crate) draft: Draft,
    /// What the load call brought along.
    pub(crate) given: Option<Override>,
    pub(crate) versions: BTreeMap<i64, VersionOrigin>,
}

/// What one version was made of.
#[derive(Clone, Default)]
pub(crate) struct VersionOrigin {
    pub(crate) fleet: Option<VersionFleet>,
    pub(crate) library: Option<LibraryOrigin>,
}

/// A library and the state that it was loaded in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LibraryOrigin {
    path: PathBuf,
    stamp: Option<Stamp>,
}

impl LibraryOrigin {
    pub(crate) fn of(path: PathBuf) -> Self {
        let stamp = Stamp::of(&path).ok();
        Self { path, stamp }
    }

    fn has_changed(&self) -> bool {
        Stamp::of(&self.path).ok() != self.stamp
    }
}

impl Origin {
    /// Whether a plain load has nothing to do: nothing has changed since the last one. A configuration that was given with
    /// that one stays until the model's directory changes; files that were given do not.
    pub(crate) fn is_current(&self, found: &FoundModel, fingerprint: &Fingerprint) -> bool {
        self.is_as_seen(found, fingerprint) && !self.versions.values().any(VersionOrigin::library_has_changed)
    }

    /// Whether what serves was made of just this state.
    pub(crate) fn is_as_seen(&self, found: &FoundModel, fingerprint: &Fingerprint) -> bool {
        let files = self.given.as_ref().is_some_and(|given| given.files.is_some());
        !files && self.found.is_same_place(found) && self.fingerprint == *fingerprint
    }

    /// The versions that a load of `draft` would make again just as they are, but for what changes in place.
    pub(crate) fn reusable(
        &self,
        found: &FoundModel,
        fingerprint: &Fingerprint,
        draft: &Draft,
    ) -> BTreeSet<i64> {
        let same_model = self.found.repository == found.repository
            && self.found.name == found.name
            && self.fingerprint.other == fingerprint.other
            && essence(&self.draft.proto) == essence(&draft.proto);
        let same = |(number, version): &(&i64, &VersionOrigin)| {
            // Ensembles have no instances to keep.
            version.fleet.is_some()
                && !version.library_has_changed()
                && self.fingerprint.versions.get(number) == fingerprint.versions.get(number)
        };
        let versions = self.versions.iter().filter(|_| same_model);
        versions.filter(same).map(|(number, _)| *number).collect()
    }
}

impl VersionOrigin {
    fn library_has_changed(&self) -> bool {
        self.library.as_ref().is_some_and(LibraryOrigin::has_changed)
    }
}

/// A configuration without what can change while the model serves.
fn essence(config: &ModelConfig) -> ModelConfig {
    ModelConfig { instance_group: Vec::new(), version_policy: None, ..config.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn draft(text: &str) -> Draft {
        let mut draft = Draft::parse(None, format!("backend: \"b\" max_batch_size: 4 {text}")).unwrap();
        draft.normalise("m", &[]);
        draft
    }

    #[test]
    fn instances_and_versions_are_not_the_essence() {
        let plain = essence(&draft("").proto);
        for same in ["instance_group { count: 3 kind: KIND_CPU }", "version_policy { all { } }"] {
            assert_eq!(essence(&draft(same).proto), plain, "{same}");
        }
        for other in ["dynamic_batching { }", "parameters { key: \"a\" value { string_value: \"b\" } }"] {
            assert_ne!(essence(&draft(other).proto), plain, "{other}");
        }
    }
}
