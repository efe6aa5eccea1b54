//! The models that are loaded before the ports open.

use std::sync::Arc;

use super::target::Targets;
use crate::core::Core;
use crate::error::ServeError;
use crate::options::ControlMode;
use crate::source;

impl Core {
    /// Loads the start-up models. Those that fail are in the index with their reasons.
    pub(crate) fn load_at_start(self: &Arc<Self>) -> Result<(), ServeError> {
        let found = source::scan(&self.options)?;
        self.change(|index| {
            for model in &found {
                let entry = index.models.entry(model.name.clone()).or_default();
                entry.reason.clone_from(&model.problem);
            }
        });
        let listed = &self.options.startup_models;
        let some =
            self.options.control_mode == ControlMode::Explicit && !listed.iter().any(|name| name == "*");
        if some {
            self.miss(listed, found.iter().map(|model| model.name.as_str()).collect());
        }
        let wanted = found.into_iter().filter(|model| !some || listed.contains(&model.name));
        let targets: Targets = wanted.map(|model| (model.name.clone(), self.target(model, None))).collect();
        self.in_turn(None, || Ok(targets.clone()), |targets, turn| self.run(targets, turn))?;
        if let ControlMode::Poll { interval } = self.options.control_mode {
            self.start_polling(interval)?;
        }
        Ok(())
    }

    /// Models of the start list that no repository has: wanted, and never ready.
    fn miss(&self, listed: &[String], known: Vec<&str>) {
        for name in listed.iter().filter(|name| !known.contains(&name.as_str())) {
            let near = crate::text::did_you_mean(name, known.iter().copied());
            let reason = format!("no such model in the repositories{near}");
            tracing::error!("--load-model {name}: {reason}");
            self.change(|index| {
                let entry = index.models.entry(name.clone()).or_default();
                entry.requested = true;
                entry.reason = Some(reason);
            });
        }
    }
}
