//! What the server does not have: refused where leaving it out would change an answer, else a warning.

use trireme_protocol::proto::model_config::SchedulingChoice;

use super::Checker;

impl Checker<'_> {
    pub(super) fn unsupported(&mut self) {
        let (config, has) = (self.config, *self.capabilities);
        match &config.scheduling_choice {
            Some(SchedulingChoice::SequenceBatching(_)) if !has.sequence_batching => {
                self.error("sequence_batching", "sequence batching is not implemented yet");
            }
            Some(SchedulingChoice::EnsembleScheduling(_)) if !has.ensemble_scheduling => {
                self.error("ensemble_scheduling", "ensembles are not implemented yet");
            }
            _ => {}
        }
        if config.response_cache.as_ref().is_some_and(|cache| cache.enable) && !has.response_cache {
            self.warn("response_cache", "there is no response cache: every request is computed");
        }
        if !config.batch_input.is_empty() && !has.batch_input_output {
            self.error("batch_input", "batch_input is not implemented yet");
        }
        if !config.batch_output.is_empty() && !has.batch_input_output {
            self.error("batch_output", "batch_output is not implemented yet");
        }
        if !config.model_warmup.is_empty() && !has.model_warmup {
            self.warn("model_warmup", "warm-up is not implemented: the first request is slower");
        }
        if config.model_repository_agents.as_ref().is_some_and(|all| !all.agents.is_empty())
            && !has.repository_agents
        {
            self.error("model_repository_agents", "repository agents are not implemented");
        }
        if config.parameters.contains_key("TRITON_BATCH_STRATEGY_PATH") {
            self.error(
                "parameters.TRITON_BATCH_STRATEGY_PATH",
                "TRITON_BATCH_STRATEGY_PATH: custom batching libraries are not implemented",
            );
        }
        let operations = config.model_operations.as_ref().map(|operations| &operations.op_library_filename);
        if operations.is_some_and(|files| !files.is_empty()) && !has.model_operations {
            self.error("model_operations", "operation libraries are not implemented");
        }
        if config.model_metrics.is_some() && !has.model_metrics {
            self.warn("model_metrics", "metric options are not implemented: the metrics are the usual ones");
        }
        if !config.runtime.is_empty() && !has.runtime {
            self.error("runtime", "another runtime file for a backend is not implemented")
                .help("name the backend itself in `backend`");
        }
    }
}
