//! The inputs and outputs of an ONNX model, held against a configuration.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use trireme_sdk::{Config, ConfigPatch, DataType, Error, Result, TensorConfig};

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
    outputs: Vec<Tensor>,
}

/// How requests of a configuration become a run of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    /// Whether the first dimension is the batch.
    pub(crate) batches: bool,
}

impl Signature {
    pub(crate) fn of(session: &Session) -> Result<Self> {
        let all = |what: &str, outlets: &[Outlet]| outlets.iter().map(|outlet| tensor(what, outlet)).collect();
        Ok(Self { inputs: all("input", session.inputs())?, outputs: all("output", session.outputs())? })
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
            if default_max_batch_size > 1 {
                patch = patch.dynamic_batching();
            }
        }
        let shown = |tensor: &Tensor| {
            let dims = if batches || proposes { tensor.dims.get(1..).unwrap_or_default() } else { &tensor.dims };
            TensorConfig {
                name: tensor.name.clone(),
                data_type: tensor.data_type,
                // A configuration has at least one dimension; see `instance`.
                dims: if dims.is_empty() { vec![1] } else { dims.to_vec() },
                optional: false,
            }
        };
        patch = self.inputs.iter().fold(patch, |patch, tensor| patch.input(shown(tensor)));
        // Who wrote some outputs wants these.
        if !written("output") {
            patch = self.outputs.iter().fold(patch, |patch, tensor| patch.output(shown(tensor)));
        }
        Ok(patch)
    }

    /// Holds a configuration against the model.
    pub(crate) fn layout(&self, config: &Config) -> Result<Layout> {
        let batches = config.max_batch_size() > 0;
        let inputs = chosen("input", &config.inputs()?, &self.inputs, batches)?;
        for missing in &self.inputs {
            if !inputs.iter().any(|input| input.name == missing.name) {
                return Err(Error::invalid(format!(
                    "the model has an input '{}', which the configuration does not have",
                    missing.name
                )));
            }
        }
        let outputs = chosen("output", &config.outputs()?, &self.outputs, batches)?;
        Ok(Layout { inputs, outputs, batches })
    }
}

/// The tensors of a configuration, in its order, as the model has them.
fn chosen(what: &str, written: &[TensorConfig], there: &[Tensor], batches: bool) -> Result<Vec<Tensor>> {
    let one = |tensor: &TensorConfig| {
        let name = &tensor.name;
        let found = there.iter().find(|one| one.name == *name).ok_or_else(|| {
            let names: Vec<&str> = there.iter().map(|tensor| tensor.name.as_str()).collect();
            Error::invalid(format!("{what} '{name}' is not one of the model, which has '{}'", names.join("', '")))
        })?;
        if found.data_type != tensor.data_type {
            return Err(Error::invalid(format!(
                "{what} '{name}' is {} in the configuration, but {} in the model",
                tensor.data_type.config_name(),
                found.data_type.config_name()
            )));
        }
        if batches && found.dims.first().is_some_and(|first| *first >= 0) {
            return Err(Error::invalid(format!(
                "max_batch_size is not 0, but the first dimension of the model's {what} '{name}' is {}, not free",
                found.dims[0]
            )));
        }
        Ok(found.clone())
    };
    written.iter().map(one).collect()
}

fn tensor(what: &str, outlet: &Outlet) -> Result<Tensor> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(Error::unsupported(format!("the model's {what} '{name}' is no tensor: {:?}", outlet.dtype())));
    };
    let data_type = data_type(*ty)
        .ok_or_else(|| Error::unsupported(format!("the model's {what} '{name}' has elements of type {ty}")))?;
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
