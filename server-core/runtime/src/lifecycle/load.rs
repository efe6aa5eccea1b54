//! The load call.

use super::target::{Override, Targets};
use super::turns::{Asker, Turn};
use crate::core::Core;
use crate::error::ServeError;
use crate::overlay::Overlay;
use crate::source;
use crate::text::did_you_mean;
use trireme_protocol::repository::LoadRequest;
use trireme_repository::{FoundModel, is_model_name, model_in};

impl Core {
    /// Loads one model, with what its ensemble needs, beside its old versions if it has any, and swaps. A failure leaves
    /// the old ones serving. `by`: the model on whose behalf a backend asks.
    pub(crate) fn load_now(
        &self,
        name: &str,
        request: LoadRequest,
        by: Option<&str>,
    ) -> Result<(), ServeError> {
        if !is_model_name(name) {
            let name = name.escape_debug();
            return Err(ServeError::invalid(format!("failed to load '{name}': it is not a model's name")));
        }
        let given = Override::of(name, request)?;
        let files = given.as_ref().and_then(|given| given.files.clone());
        let seeds = || {
            let found = self.locate(name, files.as_deref())?;
            Ok(Targets::from([(name.to_owned(), self.target(found, given.clone()))]))
        };
        let mut results = self.in_turn(by, seeds, |mut targets, turn| {
            targets.values_mut().for_each(|target| target.called = by.is_some());
            self.run(targets, turn)
        })?;
        results.remove(name).unwrap_or(Ok(()))
    }

    /// The model in the repositories, or made of the files that were given.
    fn locate(&self, name: &str, files: Option<&Overlay>) -> Result<FoundModel, ServeError> {
        if let Some(files) = files {
            return Ok(model_in(files.repository(), name, None));
        }
        if let Some(found) = source::find(&self.options, name)? {
            return Ok(found);
        }
        let names = trireme_repository::names(&self.options.repositories).unwrap_or_default();
        let near = did_you_mean(name, names.iter().map(String::as_str));
        let message = format!("failed to load '{name}', failed to poll from model repository{near}");
        Err(ServeError::internal(message))
    }

    /// Does `work` when nobody else changes any of the models that it can change. They are looked up again when it is its
    /// turn: what was before it may have changed who needs whom, and what is to be loaded.
    pub(crate) fn in_turn<R>(
        &self,
        by: Option<&str>,
        seeds: impl Fn() -> Result<Targets, ServeError>,
        work: impl FnOnce(Targets, &Turn<'_>) -> R,
    ) -> Result<R, ServeError> {
        let mut names = self.involved(&self.with_steps(seeds()?)?);
        let _asking = by.map(|by| self.life.permits.ask(by));
        loop {
            let turn = self.life.turns.enter(names.clone(), self.asker(by))?;
            let mut targets = self.with_steps(seeds()?)?;
            let now = self.involved(&targets);
            if now.is_subset(&names) {
                for (name, target) in &mut targets {
                    target.settled = self.is_settled(name, target);
                }
                let loads = targets.iter().filter(|(_, target)| !target.settled);
                turn.begin(loads.map(|(name, _)| name.clone()).collect());
                let done = work(targets, &turn);
                drop(turn);
                return Ok(done);
            }
            drop(turn);
            names.extend(now);
        }
    }

    pub(crate) fn asker<'a>(&self, by: Option<&'a str>) -> Option<Asker<'a>> {
        let index = self.index.load();
        let serves = |model| index.models.get(model).is_some_and(|entry| entry.latest.is_some());
        by.map(|model| Asker { model, serves: serves(model) })
    }
}
