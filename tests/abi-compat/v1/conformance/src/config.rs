//! What the kit needs to know of a model's configuration.

use serde_json::Value;
use trireme_host::abi::{DType, InstanceKind};

use crate::element::dtype_of;

/// A configuration as the server gives it to a backend.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) json: String,
    pub(crate) name: String,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) controls: Vec<Control>,
    pub(crate) states: Vec<Tensor>,
    /// 0: the model does not batch.
    pub(crate) max_batch_size: i64,
    pub(crate) decoupled: bool,
    pub(crate) sequence: bool,
    pub(crate) kind: Option<InstanceKind>,
}

/// An input or output. `dims` has no batch dimension; -1 is free.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<i64>,
    pub(crate) optional: bool,
    pub(crate) ragged: bool,
}

/// An input that the sequence batcher makes.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// For the only request of a sequence.
    pub(crate) value: Vec<u8>,
}

impl Config {
    /// Reads a configuration as JSON with the field names of `config.pbtxt`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let json: Value =
            serde_json::from_str(text).map_err(|error| format!("the configuration is not JSON: {error}"))?;
        let sequence = json.get("sequence_batching").filter(|value| !value.is_null());
        let kind = match json["instance_group"][0]["kind"].as_str() {
            Some("KIND_CPU") => Some(InstanceKind::CPU),
            Some("KIND_GPU") => Some(InstanceKind::GPU),
            Some("KIND_MODEL") => Some(InstanceKind::MODEL),
            _ => None,
        };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let controls = sequence.map(|sequence| list(&sequence["control_input"])).unwrap_or_default();
        let states = sequence.map(|sequence| list(&sequence["state"])).unwrap_or_default();
        Ok(Self {
            json: text.to_owned(),
            name: json["name"].as_str().unwrap_or_default().to_owned(),
            inputs: list(&json["input"]).iter().map(|one| tensor(one, "name")).collect::<Result<_, _>>()?,
            outputs: list(&json["output"]).iter().map(|one| tensor(one, "name")).collect::<Result<_, _>>()?,
            controls: controls.iter().map(control).collect::<Result<_, _>>()?,
            states: states.iter().map(|one| tensor(one, "input_name")).collect::<Result<_, _>>()?,
            max_batch_size: json["max_batch_size"].as_i64().unwrap_or(0),
            decoupled: json["model_transaction_policy"]["decoupled"].as_bool().unwrap_or(false),
            sequence: sequence.is_some(),
            kind,
        })
    }

    pub(crate) fn batches(&self) -> bool {
        self.max_batch_size > 0
    }

    /// Names of all inputs that a request may have, in the order that requests number them.
    pub(crate) fn input_names(&self) -> Vec<Box<str>> {
        let (own, controls) = (self.inputs.iter(), self.controls.iter());
        let names = own.map(|tensor| &tensor.name).chain(controls.map(|control| &control.name));
        names.chain(self.states.iter().map(|state| &state.name)).map(|name| name.as_str().into()).collect()
    }
}

fn tensor(json: &Value, key: &str) -> Result<Tensor, String> {
    let name = json[key].as_str().unwrap_or_default().to_owned();
    let type_name = json["data_type"].as_str().unwrap_or_default();
    let dtype =
        dtype_of(type_name).ok_or_else(|| format!("tensor '{name}' has the data type '{type_name}'"))?;
    // A model's own shape, if there is one, is what a backend sees.
    let own = json["reshape"]["shape"].as_array().filter(|_| json["reshape"].is_object());
    let dims = own.or_else(|| json["dims"].as_array()).into_iter().flatten().filter_map(number).collect();
    let flag = |key: &str| json[key].as_bool().unwrap_or(false);
    Ok(Tensor { name, dtype, dims, optional: flag("optional"), ragged: flag("allow_ragged_batch") })
}

/// 64-bit numbers may be texts in protobuf's JSON.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn control(json: &Value) -> Result<Control, String> {
    let name = json["name"].as_str().unwrap_or_default().to_owned();
    let control = &json["control"][0];
    let yes =
        |key: &str| control[key].as_array().filter(|values| values.len() == 2).map(|both| both[1].clone());
    let (dtype, value) = if control["kind"].as_str() == Some("CONTROL_SEQUENCE_CORRID") {
        let dtype = control["data_type"].as_str().and_then(dtype_of).unwrap_or(DType::UINT64);
        let mut value = Vec::new();
        crate::element::put_small(dtype, 1, &mut value);
        (dtype, value)
    } else if let Some(yes) = yes("int32_false_true") {
        let value = yes.as_i64().and_then(|value| i32::try_from(value).ok()).unwrap_or(1);
        (DType::INT32, value.to_le_bytes().to_vec())
    } else if let Some(yes) = yes("fp32_false_true") {
        (DType::FP32, (yes.as_f64().unwrap_or(1.0) as f32).to_le_bytes().to_vec())
    } else if let Some(yes) = yes("bool_false_true") {
        (DType::BOOL, vec![u8::from(yes.as_bool().unwrap_or(true))])
    } else {
        return Err(format!("control '{name}' has no pair of values"));
    };
    Ok(Control { name, dtype, value })
}

impl Tensor {
    /// What is wrong with a tensor that should be this one, for a request of so many rows.
    pub(crate) fn difference(&self, rows: Option<u32>, dtype: DType, shape: &[i64]) -> Option<String> {
        use crate::element::name_of;
        let name = &self.name;
        if self.dtype != dtype {
            return Some(format!(
                "output '{name}' is of {}, configured is {}",
                name_of(dtype),
                name_of(self.dtype)
            ));
        }
        let own = match rows {
            None => shape,
            Some(rows) => match shape.split_first() {
                Some((first, rest)) if *first == i64::from(rows) => rest,
                _ => {
                    return Some(format!(
                        "output '{name}' has the shape {shape:?} for a request of {rows} rows"
                    ));
                }
            },
        };
        let fits = |(dim, size): (&i64, &i64)| *dim == -1 || dim == size;
        let fit = own.len() == self.dims.len() && self.dims.iter().zip(own).all(fits);
        let behind = if rows.is_some() { " behind the batch dimension" } else { "" };
        (!fit).then(|| {
            format!("output '{name}' has the shape {shape:?}, configured is {:?}{behind}", self.dims)
        })
    }
}
