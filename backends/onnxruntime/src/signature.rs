//! The inputs and outputs of an ONNX model, held against a configuration.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use serde_json::Value;
use trireme_sdk::{Config, ConfigPatch, DataType, Error, Request, Result, TensorConfig};

/// A tensor of a model. A dimension of -1 is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) dims: Vec<i64>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    inputs: Vec<Tensor>,
    /// Inputs for which the model has a value: initializers that may be overridden.
    defaults: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

/// An input of the model and how the requests' tensors become it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutInput {
    pub(crate) tensor: Tensor,
    pub(crate) joined: Joined,
    /// Whether a request may leave it out.
    pub(crate) absent: Absent,
}

/// What becomes of a request that does not bring an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The server refuses it: the input is not optional.
    Never,
    /// The model has a value for it.
    Default,
    /// It is refused here: the configuration calls the input optional, the model does not.
    Refused,
}

/// How the tensors of a batch are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// One below the other: their rows add up, the other dimensions are the same.
    Rows,
    /// The elements one behind the other, without dimensions: `allow_ragged_batch`.
    Flat,
    /// The server's parts of a `batch_input`, one behind the other.
    Parts,
}

/// An output of the model and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutOutput {
    pub(crate) tensor: Tensor,
    /// Its place in the configuration; a state that clients do not see has none.
    pub(crate) number: Option<usize>,
    /// Whether it is a state, which the server takes from every answer.
    pub(crate) state: bool,
    /// `batch_output`: each request's part has as many elements as this input of it.
    pub(crate) cut_like: Option<String>,
}

impl LayoutOutput {
    /// Whether a request is to have it.
    pub(crate) fn is_wanted(&self, request: &Request) -> bool {
        self.state || self.number.is_some_and(|number| request.wants_output(number))
    }
}

/// How requests of a configuration become a run of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) inputs: Vec<LayoutInput>,
    pub(crate) outputs: Vec<LayoutOutput>,
    /// Whether the first dimension is the batch.
    pub(crate) batches: bool,
}

impl Layout {
    /// Inputs that are optional in the configuration alone.
    pub(crate) fn needed_optional(&self) -> impl Iterator<Item = &str> {
        self.inputs
            .iter()
            .filter(|input| input.absent == Absent::Refused)
            .map(|input| input.tensor.name.as_str())
    }
}

impl Signature {
    pub(crate) fn of(session: &Session) -> Result<Self> {
        let all = |what: &str, outlets: &[Outlet]| -> Result<Vec<Tensor>> {
            outlets.iter().map(|outlet| tensor(what, outlet)).collect()
        };
        let defaults = session.overridable_initializers();
        // One of a type that no request can have keeps its value.
        let defaults =
            defaults.iter().filter_map(|one| typed("input", one.name(), one.dtype()).ok()).collect();
        Ok(Self {
            inputs: all("input", session.inputs())?,
            defaults,
            outputs: all("output", session.outputs())?,
        })
    }

    /// Whether the first dimension of every tensor is free.
    fn can_batch(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|tensor| tensor.dims.first() == Some(&-1))
    }

    /// What a configuration leaves open. A model that can batch does, unless its author has written tensors: then the
    /// dimensions there are meant as they are.
    pub(crate) fn complete(&self, config: &Config, default_max_batch_size: u32) -> Result<ConfigPatch> {
        let json = config.json();
        let written = |field: &str| json[field].as_array().is_some_and(|list| !list.is_empty());
        let any_written = written("input") || written("output");
        let batches = config.max_batch_size() > 0;
        let mut patch = ConfigPatch::new().extending();
        let proposes = !batches && !any_written && self.can_batch() && default_max_batch_size > 0;
        if proposes {
            patch = patch.max_batch_size(default_max_batch_size);
        }
        let largest = if proposes { default_max_batch_size } else { config.max_batch_size() };
        if largest > 1 && !any_written && json["sequence_batching"].is_null() {
            patch = patch.dynamic_batching();
        }
        let shown = |tensor: &Tensor| {
            let dims =
                if batches || proposes { tensor.dims.get(1..).unwrap_or_default() } else { &tensor.dims };
            // A configuration has at least one dimension, and none of 0; see `gather` and `scatter`.
            let free = |dim: &i64| if *dim == 0 { -1 } else { *dim };
            TensorConfig {
                name: tensor.name.clone(),
                data_type: tensor.data_type,
                dims: if dims.is_empty() { vec![1] } else { dims.iter().map(free).collect() },
                optional: false,
            }
        };
        let added = Added::read(json);
        let open = self.inputs.iter().filter(|tensor| !added.is_input(&tensor.name));
        patch = open.fold(patch, |patch, tensor| patch.input(shown(tensor)));
        // Who wrote some outputs wants these.
        if !written("output") {
            let open = self.outputs.iter().filter(|tensor| !added.is_state_output(&tensor.name));
            patch = open.fold(patch, |patch, tensor| patch.output(shown(tensor)));
        }
        Ok(patch)
    }

    /// Holds a configuration against the model.
    pub(crate) fn layout(&self, config: &Config) -> Result<Layout> {
        let batches = config.max_batch_size() > 0;
        let json = config.json();
        let added = Added::read(json);
        let ragged = |name: &str| {
            let mut written = json["input"].as_array().into_iter().flatten();
            written.any(|input| input["name"] == name && input["allow_ragged_batch"] == true)
        };
        let taken: Vec<Tensor> = self.inputs.iter().chain(&self.defaults).cloned().collect();
        let mut inputs = Vec::new();
        for input in &config.inputs()? {
            let joined = if ragged(&input.name) { Joined::Flat } else { Joined::Rows };
            let tensor = chosen("input", input, &taken, batches && joined == Joined::Rows)?;
            if joined == Joined::Rows {
                dims_agree("input", &input.name, json, &tensor, batches)?;
            }
            let absent = match input.optional {
                false => Absent::Never,
                true if self.defaults.contains(&tensor) => Absent::Default,
                true => Absent::Refused,
            };
            inputs.push(LayoutInput { tensor, joined, absent });
        }
        let given = added.rows.iter().map(|name| (name, Joined::Rows));
        for (name, joined) in given.chain(added.parts.iter().map(|name| (name, Joined::Parts))) {
            let tensor = found("input", name, &taken)?.clone();
            inputs.push(LayoutInput { tensor, joined, absent: Absent::Never });
        }
        for missing in &self.inputs {
            if !inputs.iter().any(|input| input.tensor.name == missing.name) {
                return Err(Error::invalid(format!(
                    "the model has an input '{}', which the configuration does not have",
                    missing.name
                )));
            }
        }
        let mut outputs = Vec::new();
        for (number, output) in config.outputs()?.iter().enumerate() {
            let cut_like =
                added.cut.iter().find(|(name, _)| *name == output.name).map(|(_, input)| input.clone());
            let tensor = chosen("output", output, &self.outputs, batches && cut_like.is_none())?;
            if cut_like.is_none() {
                dims_agree("output", &output.name, json, &tensor, batches)?;
            }
            let state = added.is_state_output(&tensor.name);
            outputs.push(LayoutOutput { tensor, number: Some(number), state, cut_like });
        }
        for name in &added.state_outputs {
            if !outputs.iter().any(|output| output.tensor.name == *name) {
                let tensor = found("state output", name, &self.outputs)?.clone();
                outputs.push(LayoutOutput { tensor, number: None, state: true, cut_like: None });
            }
        }
        Ok(Layout { inputs, outputs, batches })
    }
}

/// The tensors of the model that the server gives and takes beside the client's.
struct Added {
    /// Controls and states of a sequence, row by row.
    rows: Vec<String>,
    /// Targets of `batch_input`.
    parts: Vec<String>,
    state_outputs: Vec<String>,
    /// Targets of `batch_output`, each with the input by which it is cut.
    cut: Vec<(String, String)>,
}

impl Added {
    fn read(config: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sequence = &config["sequence_batching"];
        let (controls, states) = (list(&sequence["control_input"]), list(&sequence["state"]));
        let targets = |field: &str| -> Vec<(String, String)> {
            let of = |value: &Value| -> Vec<(String, String)> {
                let source = text(&value["source_input"][0]);
                list(&value["target_name"]).iter().map(|target| (text(target), source.clone())).collect()
            };
            list(&config[field]).iter().flat_map(of).collect()
        };
        Self {
            rows: controls
                .iter()
                .map(|control| text(&control["name"]))
                .chain(states.iter().map(|state| text(&state["input_name"])))
                .collect(),
            parts: targets("batch_input").into_iter().map(|(target, _)| target).collect(),
            state_outputs: states.iter().map(|state| text(&state["output_name"])).collect(),
            cut: targets("batch_output"),
        }
    }

    fn is_input(&self, name: &str) -> bool {
        self.rows.iter().chain(&self.parts).any(|one| one == name)
    }

    fn is_state_output(&self, name: &str) -> bool {
        self.state_outputs.iter().any(|one| one == name)
    }
}

fn found<'a>(what: &str, name: &str, there: &'a [Tensor]) -> Result<&'a Tensor> {
    there.iter().find(|one| one.name == *name).ok_or_else(|| {
        let names: Vec<&str> = there.iter().map(|tensor| tensor.name.as_str()).collect();
        Error::invalid(format!("{what} '{name}' is not one of the model, which has '{}'", names.join("', '")))
    })
}

/// A tensor of a configuration as the model has it. `batch`: its first dimension must be free for the rows of a batch.
fn chosen(what: &str, tensor: &TensorConfig, there: &[Tensor], batch: bool) -> Result<Tensor> {
    let name = &tensor.name;
    let found = found(what, name, there)?;
    if found.data_type != tensor.data_type {
        return Err(Error::invalid(format!(
            "{what} '{name}' is {} in the configuration, but {} in the model",
            tensor.data_type.config_name(),
            found.data_type.config_name()
        )));
    }
    if batch && found.dims.first().is_some_and(|first| *first >= 0) {
        return Err(Error::invalid(format!(
            "max_batch_size is not 0, but the first dimension of the model's {what} '{name}' is {}, not free",
            found.dims[0]
        )));
    }
    Ok(found.clone())
}

/// Refuses dimensions of a configuration that can never be those of the model. What the model leaves open stays open.
fn dims_agree(what: &str, name: &str, config: &Value, tensor: &Tensor, batches: bool) -> Result<()> {
    let mut written = config[what].as_array().into_iter().flatten();
    let Some(written) = written.find(|one| one["name"] == name) else { return Ok(()) };
    let shape = Some(&written["reshape"]["shape"]).filter(|shape| shape.is_array());
    let dims = shape.unwrap_or(&written["dims"]).as_array().into_iter().flatten().filter_map(Value::as_i64);
    let shown: Vec<i64> = batches.then_some(-1).into_iter().chain(dims).collect();
    let model = &tensor.dims;
    // Of a tensor without dimensions the model does not say whether it has none or any number of them. A configuration cannot
    // say that there is none beside the batch.
    let bare = model.len() == usize::from(batches);
    let added_one = bare && shown.len() == model.len() + 1 && shown.last() == Some(&1);
    let same = |(shown, model): (&i64, &i64)| *shown < 0 || *model <= 0 || shown == model;
    if model.is_empty() || ((added_one || shown.len() == model.len()) && shown.iter().zip(model).all(same)) {
        return Ok(());
    }
    let batch = if batches { ", the batch first," } else { "" };
    Err(Error::invalid(format!(
        "{what} '{name}' has the dimensions {shown:?}{batch} in the configuration, but {model:?} in the model"
    )))
}

fn tensor(what: &str, outlet: &Outlet) -> Result<Tensor> {
    typed(what, outlet.name(), outlet.dtype())
}

fn typed(what: &str, name: &str, dtype: &ValueType) -> Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = dtype else {
        return Err(Error::unsupported(format!("the model's {what} '{name}' is no tensor: {dtype:?}")));
    };
    let data_type = data_type(*ty).ok_or_else(|| {
        Error::unsupported(format!("the model's {what} '{name}' has elements of type {ty}"))
    })?;
    Ok(Tensor { name: name.to_owned(), data_type, dims: shape.iter().copied().collect() })
}

fn data_type(element: TensorElementType) -> Option<DataType> {
    use TensorElementType as T;
    Some(match element {
        T::Bool => DataType::Bool,
        T::Uint8 => DataType::Uint8,
        T::Uint16 => DataType::Uint16,
        T::Uint32 => DataType::Uint32,
        T::Uint64 => DataType::Uint64,
        T::Int8 => DataType::Int8,
        T::Int16 => DataType::Int16,
        T::Int32 => DataType::Int32,
        T::Int64 => DataType::Int64,
        T::Float16 => DataType::Fp16,
        T::Float32 => DataType::Fp32,
        T::Float64 => DataType::Fp64,
        T::String => DataType::Bytes,
        T::Bfloat16 => DataType::Bf16,
        _ => return None,
    })
}
