//! The sequence batcher: its controls, its state, its strategy.

use std::collections::BTreeSet;

use trireme_protocol::DataType;
use trireme_protocol::proto::ModelSequenceBatching;
use trireme_protocol::proto::model_sequence_batching::control::Kind;
use trireme_protocol::proto::model_sequence_batching::initial_state::StateData;
use trireme_protocol::proto::model_sequence_batching::{Control, State, StrategyChoice};

use super::{Checker, stays_inside};

impl Checker<'_> {
    pub(super) fn sequence(&mut self, sequence: &ModelSequenceBatching, max_batch_size: u32) {
        match &sequence.strategy_choice {
            Some(StrategyChoice::Direct(direct))
                if !(0.0..=1.0).contains(&direct.minimum_slot_utilization) =>
            {
                let message = format!(
                    "minimum_slot_utilization is {}; it must be 0 to 1",
                    direct.minimum_slot_utilization
                );
                self.error("sequence_batching.direct.minimum_slot_utilization", message);
            }
            Some(StrategyChoice::Oldest(oldest)) => {
                // Without batching a batch has one request all the same.
                let most = max_batch_size.max(1);
                self.preferred(
                    "sequence_batching.oldest.preferred_batch_size",
                    &oldest.preferred_batch_size,
                    most,
                );
                if oldest.max_candidate_sequences < 0 {
                    let message = format!(
                        "max_candidate_sequences is {}; it must be 0 or more",
                        oldest.max_candidate_sequences
                    );
                    self.error("sequence_batching.oldest.max_candidate_sequences", message);
                }
            }
            _ => {}
        }
        if sequence.iterative_sequence {
            self.error("sequence_batching.iterative_sequence", "iterative sequences are not implemented yet");
        }
        self.controls(sequence);
        let (mut inputs, mut outputs) = (BTreeSet::new(), BTreeSet::new());
        for (number, state) in sequence.state.iter().enumerate() {
            let path = format!("sequence_batching.state.{number}");
            self.state(&path, state);
            for (field, name, seen) in [
                ("input_name", &state.input_name, &mut inputs),
                ("output_name", &state.output_name, &mut outputs),
            ] {
                if name.is_empty() {
                    self.error(&path, format!("the state has no {field}"));
                } else if !seen.insert(name.as_str()) {
                    self.error(&format!("{path}.{field}"), format!("state {field} '{name}' is given twice"));
                }
            }
        }
    }

    fn controls(&mut self, sequence: &ModelSequenceBatching) {
        let (mut kinds, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (number, input) in sequence.control_input.iter().enumerate() {
            let path = format!("sequence_batching.control_input.{number}");
            let name = input.name.as_str();
            if name.is_empty() {
                self.error(&path, "the control_input has no name");
            } else if !names.insert(name) || self.config.input.iter().any(|other| other.name == name) {
                self.error(&format!("{path}.name"), format!("input '{name}' is given twice"));
            }
            if input.control.is_empty() {
                self.error(&path, format!("control_input '{name}' has no control"));
            }
            for (place, control) in input.control.iter().enumerate() {
                let path = format!("{path}.control.{place}");
                let kind = control.kind();
                if !kinds.insert(kind as i32) {
                    let message = format!("{} is given twice; one input can carry it", kind.as_str_name());
                    self.error(&format!("{path}.kind"), message);
                }
                self.control(&path, control);
            }
        }
    }

    fn control(&mut self, path: &str, control: &Control) {
        let kind = control.kind().as_str_name();
        let pairs =
            [control.int32_false_true.len(), control.fp32_false_true.len(), control.bool_false_true.len()];
        let given = pairs.iter().filter(|length| **length > 0).count();
        if control.kind() == Kind::ControlSequenceCorrid {
            use DataType::{Bytes, Int32, Int64, Uint32, Uint64};
            if !matches!(
                DataType::from_proto(control.data_type),
                Some(Bytes | Int32 | Int64 | Uint32 | Uint64)
            ) {
                let message = format!(
                    "{kind} needs a data_type of TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING"
                );
                self.error(&format!("{path}.data_type"), message);
            }
            if given > 0 {
                self.error(
                    path,
                    format!("{kind} carries the sequence's id, so it has no false and true values"),
                );
            }
            return;
        }
        if given != 1 || !pairs.contains(&2) {
            self.error(path, format!("{kind} needs two values in one of its *_false_true fields"))
                .help("for example `int32_false_true: [ 0, 1 ]`");
        }
        if control.data_type != 0 {
            let message = format!("{kind} has the type of its *_false_true field, so data_type is left out");
            self.error(&format!("{path}.data_type"), message);
        }
    }

    fn state(&mut self, path: &str, state: &State) {
        let name = &state.input_name;
        if state.use_growable_memory {
            let message = format!("state '{name}' asks for growable memory, which is not implemented yet");
            self.error(&format!("{path}.use_growable_memory"), message);
        }
        if DataType::from_proto(state.data_type).is_none() {
            self.error(&format!("{path}.data_type"), format!("state '{name}' has no data_type"));
        }
        self.dims(&format!("{path}.dims"), "state", name, &state.dims);
        for (number, initial) in state.initial_state.iter().enumerate() {
            let path = format!("{path}.initial_state.{number}");
            if initial.data_type != state.data_type {
                let message = format!("an initial_state of '{name}' has another data_type than the state");
                self.error(&format!("{path}.data_type"), message);
            }
            if initial.dims.iter().any(|dim| *dim < 1 && *dim != -1) {
                let message = format!("an initial_state of '{name}' has a dimension below 1 that is not -1");
                self.error(&format!("{path}.dims"), message);
            }
            match &initial.state_data {
                None => {
                    self.error(
                        &path,
                        format!("an initial_state of '{name}' has neither zero_data nor data_file"),
                    );
                }
                Some(StateData::DataFile(file)) if !stays_inside(file) => {
                    let message = format!("data_file '{file}' leaves the directory initial_state");
                    self.error(&format!("{path}.data_file"), message);
                }
                Some(_) => {}
            }
        }
    }
}
