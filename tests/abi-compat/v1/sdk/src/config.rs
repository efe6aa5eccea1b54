use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::element::DataType;
use crate::error::{Error, Result};

/// A model's configuration, as JSON with protobuf's field names and all defaults.
#[derive(Debug, Clone)]
pub struct Config(Value);

/// An input or output of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub data_type: DataType,
    /// Its dimensions without the batch dimension; -1 is free.
    pub dims: Vec<i64>,
    /// Whether a request may leave it out (inputs only).
    pub optional: bool,
}

impl Config {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| Error::internal(format!("configuration: {error}")))
    }

    /// The whole configuration.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The largest batch; 0 if the model does not batch.
    pub fn max_batch_size(&self) -> u32 {
        self.0["max_batch_size"].as_u64().and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
    }

    /// Whether a request may have any number of answers.
    pub fn is_decoupled(&self) -> bool {
        self.0["model_transaction_policy"]["decoupled"].as_bool().unwrap_or(false)
    }

    /// The inputs.
    ///
    /// # Errors
    /// A data type that this SDK does not know.
    pub fn inputs(&self) -> Result<Vec<TensorConfig>> {
        self.tensors("input")
    }

    /// The outputs.
    ///
    /// # Errors
    /// A data type that this SDK does not know.
    pub fn outputs(&self) -> Result<Vec<TensorConfig>> {
        self.tensors("output")
    }

    fn tensors(&self, field: &str) -> Result<Vec<TensorConfig>> {
        let one = |tensor: &Value| {
            let name = tensor["name"].as_str().unwrap_or_default().to_owned();
            let data_type = tensor["data_type"].as_str().unwrap_or_default();
            let data_type = DataType::from_config_name(data_type)
                .ok_or_else(|| Error::unsupported(format!("{field} '{name}': data type '{data_type}'")))?;
            let dims = tensor["dims"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
            Ok(TensorConfig {
                name,
                data_type,
                dims,
                optional: tensor["optional"].as_bool().unwrap_or(false),
            })
        };
        self.0[field].as_array().into_iter().flatten().map(one).collect()
    }

    /// The names and values of `parameters`.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.0["parameters"].as_object().into_iter().flatten();
        parameters.map(|(name, value)| (name.as_str(), value["string_value"].as_str().unwrap_or_default()))
    }

    /// The value of a parameter, if it is given.
    ///
    /// # Errors
    /// INVALID_ARG if the value is not of the type, naming the parameter.
    pub fn parameter<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.0["parameters"][name]["string_value"].as_str() else { return Ok(None) };
        let parsed = text.trim().parse();
        parsed.map(Some).map_err(|_| {
            Error::invalid(format!("parameter '{name}' has the value '{text}', which is not valid"))
        })
    }
}

/// What a backend adds to a configuration that leaves it open.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_batch_size: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    input: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    output: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_transaction_policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_batching: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instance_group: Vec<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    extends: bool,
}

impl ConfigPatch {
    /// Nothing added yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Proposes the largest batch.
    #[must_use]
    pub fn max_batch_size(mut self, size: u32) -> Self {
        self.max_batch_size = Some(size);
        self
    }

    /// Proposes an input.
    #[must_use]
    pub fn input(mut self, tensor: TensorConfig) -> Self {
        let mut value = tensor_json(&tensor);
        value["optional"] = json!(tensor.optional);
        self.input.push(value);
        self
    }

    /// Proposes an output.
    #[must_use]
    pub fn output(mut self, tensor: TensorConfig) -> Self {
        self.output.push(tensor_json(&tensor));
        self
    }

    /// Proposes that requests may have any number of answers.
    #[must_use]
    pub fn decoupled(mut self, decoupled: bool) -> Self {
        self.model_transaction_policy = Some(json!({ "decoupled": decoupled }));
        self
    }

    /// Proposes tensors beside those of the configuration, and completes those of which it says less than type and
    /// dimensions. Without it, tensors are proposed only where the configuration has none.
    #[must_use]
    pub fn extending(mut self) -> Self {
        self.extends = true;
        self
    }

    /// Proposes dynamic batching with its defaults.
    #[must_use]
    pub fn dynamic_batching(mut self) -> Self {
        self.dynamic_batching = Some(json!({}));
        self
    }

    /// Proposes GPUs for the instance groups that may run on one and name none.
    #[must_use]
    pub fn gpus(mut self, gpus: impl IntoIterator<Item = i32>) -> Self {
        let gpus: Vec<i32> = gpus.into_iter().collect();
        self.instance_group = vec![json!({ "kind": "KIND_GPU", "gpus": gpus })];
        self
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn tensor_json(tensor: &TensorConfig) -> Value {
    json!({ "name": tensor.name, "data_type": tensor.data_type.config_name(), "dims": tensor.dims })
}
