//! The weights of a checkpoint by their canonical name.

use std::collections::{BTreeMap, HashMap};

use super::error::CheckpointErrorKind as Kind;
use super::weight::Weight;

/// Weights by name, and what was left out with its type.
#[derive(Default)]
pub(super) struct WeightIndex {
    weights: HashMap<String, Weight>,
    ignored: BTreeMap<String, String>,
}

impl WeightIndex {
    /// Takes a weight. A second one of the same name is refused.
    pub(super) fn add(&mut self, weight: Weight) -> Result<(), Kind> {
        let name = weight.name.clone();
        match self.weights.insert(name, weight) {
            None => Ok(()),
            Some(twice) => Err(Kind::Malformed(format!("tensor '{}' is there twice", twice.name))),
        }
    }

    /// Notes a tensor whose type cannot be a weight's.
    pub(super) fn ignore(&mut self, name: String, ty: String) {
        self.ignored.insert(name, ty);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Weight> {
        self.weights.get(name)
    }

    /// The error for a weight that [`Self::get`] does not find.
    pub(super) fn missing(&self, name: &str) -> Kind {
        let hint = match self.ignored.get(name) {
            Some(ty) => format!(" of a type that can be used (it is {ty}; F32, F16 and BF16 can)"),
            None => String::new(),
        };
        Kind::MissingWeight { name: name.to_owned(), hint }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Weight> {
        self.weights.values()
    }

    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// Takes `prefix` off the names that have it (`bert.encoder...` and `encoder...` are the same weight).
    pub(super) fn strip_prefix(&mut self, prefix: &str) -> Result<(), Kind> {
        for mut weight in std::mem::take(&mut self.weights).into_values() {
            if let Some(short) = weight.name.strip_prefix(prefix) {
                weight.name = short.to_owned();
            }
            self.add(weight)?;
        }
        Ok(())
    }
}
