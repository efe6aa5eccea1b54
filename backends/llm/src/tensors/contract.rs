//! Names and types of a model's tensors, held against a configuration and against requests.

use trireme_sdk::{Config, DataType, Error, Input, Request, Result, TensorConfig};

/// What a model of a kind may have as inputs and outputs.
#[derive(Debug)]
pub struct Contract {
    /// What errors call such a model: "a model of token ids".
    pub what: &'static str,
    /// Inputs that work, or whose values are held against what does.
    pub inputs: &'static [(&'static str, DataType)],
    /// Inputs that a configuration may have, and a request must not use: what they ask for is not there.
    pub refused: &'static [&'static str],
    /// Outputs that can be given.
    pub outputs: &'static [(&'static str, DataType)],
    /// Outputs that a configuration may have, and that never come.
    pub absent: &'static [&'static str],
}

impl Contract {
    /// Holds a whole configuration against the contract.
    ///
    /// # Errors
    /// A tensor that is not in it, has another type, or must be optional; the error names it.
    pub fn check(&self, config: &Config) -> Result<()> {
        self.check_inputs(&config.inputs()?)?;
        self.check_outputs(&config.outputs()?)
    }

    /// The inputs' part of [`Self::check`].
    pub(super) fn check_inputs(&self, inputs: &[TensorConfig]) -> Result<()> {
        for input in inputs {
            let name = input.name.as_str();
            if self.refused.contains(&name) {
                if !input.optional {
                    let text = format!("input '{name}' is not supported, so it must be 'optional: true'");
                    return Err(Error::invalid(text));
                }
                continue;
            }
            known("input", self.what, input, self.inputs)?;
        }
        Ok(())
    }

    /// The outputs' part of [`Self::check`].
    pub(super) fn check_outputs(&self, outputs: &[TensorConfig]) -> Result<()> {
        let given = outputs.iter().filter(|output| !self.absent.contains(&output.name.as_str()));
        given.into_iter().try_for_each(|output| known("output", self.what, output, self.outputs))
    }

    /// Refuses a request that uses an input of which nothing would come.
    ///
    /// # Errors
    /// UNSUPPORTED, naming the input.
    pub fn refuse(&self, request: &Request) -> Result<()> {
        for input in request.inputs() {
            if self.refused.contains(&input.name()) && !is_idle(&input)? {
                let name = input.name();
                return Err(Error::unsupported(format!("input '{name}' is not supported: leave it out")));
            }
        }
        Ok(())
    }
}

/// Whether an input asks for nothing: it is empty, a flag that is false, or an empty text.
pub(super) fn is_idle(input: &Input<'_>) -> Result<bool> {
    Ok(input.element_count() == 0
        || match input.data_type() {
            DataType::Bool => input.data()?.iter().all(|byte| *byte == 0),
            DataType::Bytes => input.bytes()?.iter().all(|text| text.is_empty()),
            _ => false,
        })
}

fn known(kind: &str, what: &str, tensor: &TensorConfig, table: &[(&str, DataType)]) -> Result<()> {
    let name = tensor.name.as_str();
    match table.iter().find(|(known, _)| *known == name) {
        Some((_, data_type)) if *data_type != tensor.data_type => {
            let (is, must) = (tensor.data_type.config_name(), data_type.config_name());
            Err(Error::invalid(format!("{kind} '{name}' is {is}, it must be {must}")))
        }
        Some(_) => Ok(()),
        None => {
            let near = table.iter().map(|(known, _)| (strsim::jaro_winkler(known, name), *known));
            let near = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map(|(_, known)| format!(", did you mean '{known}'?")).unwrap_or_default();
            Err(Error::invalid(format!("{what} has no {kind} '{name}'{hint}")))
        }
    }
}
