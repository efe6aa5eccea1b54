//! Inputs and outputs.

use std::collections::BTreeSet;

use trireme_protocol::proto::model_input::Format;
use trireme_protocol::{DataType, element_count};

use super::{Checker, stays_inside};
use crate::checked::TensorSpec;

/// Backends of the family that knows shape tensors and formats of its own.
const TENSORRT: [&str; 2] = ["tensorrt", "tensorrtllm"];

impl Checker<'_> {
    pub(super) fn inputs(&mut self) -> Vec<TensorSpec> {
        let config = self.config;
        let (mut specs, mut names) = (Vec::new(), BTreeSet::new());
        for (number, input) in config.input.iter().enumerate() {
            let path = format!("input.{number}");
            let first = names.insert(input.name.as_str());
            let tensor = Tensor {
                kind: "input",
                path: &path,
                name: &input.name,
                data_type: input.data_type,
                dims: &input.dims,
                shape: input.reshape.as_ref().map(|reshape| reshape.shape.as_slice()),
                is_shape_tensor: input.is_shape_tensor,
                is_non_linear_format_io: input.is_non_linear_format_io,
            };
            let spec = self.tensor(&tensor, first);
            if input.allow_ragged_batch && config.max_batch_size == 0 {
                let message = format!(
                    "input '{}' has allow_ragged_batch, which needs max_batch_size above 0",
                    input.name
                );
                self.error(&format!("{path}.allow_ragged_batch"), message);
            }
            if input.format() != Format::None && input.dims.len() != 3 {
                let message = format!(
                    "input '{}' has the format {}, so it needs 3 dims, not {}",
                    input.name,
                    input.format().as_str_name(),
                    input.dims.len()
                );
                self.error(&format!("{path}.format"), message);
            }
            specs.extend(spec.map(|spec| TensorSpec {
                optional: input.optional,
                allow_ragged_batch: input.allow_ragged_batch,
                ..spec
            }));
        }
        specs
    }

    pub(super) fn outputs(&mut self) -> Vec<TensorSpec> {
        let config = self.config;
        let (mut specs, mut names) = (Vec::new(), BTreeSet::new());
        for (number, output) in config.output.iter().enumerate() {
            let path = format!("output.{number}");
            let first = names.insert(output.name.as_str());
            let tensor = Tensor {
                kind: "output",
                path: &path,
                name: &output.name,
                data_type: output.data_type,
                dims: &output.dims,
                shape: output.reshape.as_ref().map(|reshape| reshape.shape.as_slice()),
                is_shape_tensor: output.is_shape_tensor,
                is_non_linear_format_io: output.is_non_linear_format_io,
            };
            let spec = self.tensor(&tensor, first);
            if !output.label_filename.is_empty() {
                self.labels(&format!("{path}.label_filename"), &output.label_filename);
            }
            specs.extend(
                spec.map(|spec| TensorSpec { label_filename: output.label_filename.clone(), ..spec }),
            );
        }
        specs
    }

    fn labels(&mut self, field: &str, file: &str) {
        if !stays_inside(file) {
            self.error(field, format!("label_filename '{file}' leaves the model's directory"));
        } else if !self.capabilities.labels {
            self.warn(field, "classification is not implemented: labels are not read");
        }
    }

    fn tensor(&mut self, tensor: &Tensor<'_>, first: bool) -> Option<TensorSpec> {
        let Tensor { kind, path, name, dims, shape, .. } = *tensor;
        if name.is_empty() {
            self.error(path, format!("the {kind} has no name"));
            return None;
        }
        if !first {
            self.error(&format!("{path}.name"), format!("{kind} '{name}' is given twice"));
        }
        let data_type = DataType::from_proto(tensor.data_type);
        if data_type.is_none() {
            self.error(&format!("{path}.data_type"), format!("{kind} '{name}' has no data_type"))
                .help("add a line such as `data_type: TYPE_FP32`");
        }
        self.dims(&format!("{path}.dims"), kind, name, dims);
        if let Some(shape) = shape {
            self.reshape(tensor, shape);
        }
        let tensorrt = TENSORRT.contains(&self.config.backend.as_str());
        if tensor.is_shape_tensor {
            let field = format!("{path}.is_shape_tensor");
            if !tensorrt {
                let message = format!("{kind} '{name}' is a shape tensor, which only TensorRT models have");
                self.error(&field, message);
            } else if !self.capabilities.shape_tensors {
                self.error(&field, "shape tensors are not implemented yet");
            }
        }
        if tensor.is_non_linear_format_io && !tensorrt {
            let message =
                format!("{kind} '{name}' has is_non_linear_format_io, which only TensorRT models have");
            self.error(&format!("{path}.is_non_linear_format_io"), message);
        }
        Some(TensorSpec {
            name: name.to_owned(),
            data_type: data_type?,
            dims: dims.to_vec(),
            reshape: shape.map(<[i64]>::to_vec),
            optional: false,
            allow_ragged_batch: false,
            is_shape_tensor: tensor.is_shape_tensor,
            label_filename: String::new(),
        })
    }

    /// At least one dimension, each 1 or more, or -1.
    pub(super) fn dims(&mut self, field: &str, kind: &str, name: &str, dims: &[i64]) {
        if dims.is_empty() {
            self.error(field, format!("{kind} '{name}' must specify 'dims'"))
                .help("`dims: [ 1 ]` for a scalar, without the batch dimension");
        }
        let bad = dims.iter().enumerate().find(|(_, dim)| **dim < 1 && **dim != -1);
        if let Some((number, dim)) = bad {
            let message =
                format!("{kind} '{name}' has the dimension {dim}; it must be 1 or more, or -1 for any");
            self.error(&format!("{field}.{number}"), message);
        } else if dims.split(|dim| *dim == -1).any(|part| element_count(part).is_err()) {
            self.error(field, format!("{kind} '{name}' has more elements than a tensor can have"));
        }
    }

    /// A reshape keeps the number of elements; its free dimensions pair up with those of `dims`, in order.
    fn reshape(&mut self, tensor: &Tensor<'_>, shape: &[i64]) {
        let Tensor { kind, path, name, dims, .. } = *tensor;
        let field = format!("{path}.reshape");
        if shape.is_empty() && self.config.max_batch_size == 0 {
            let message = format!("{kind} '{name}' has an empty reshape, which needs max_batch_size above 0");
            self.error(&field, message);
            return;
        }
        if shape.iter().any(|dim| *dim < 1 && *dim != -1) {
            let message = format!("{kind} '{name}' has a reshape with a dimension below 1 that is not -1");
            self.error(&field, message);
            return;
        }
        let parts = |dims: &[i64]| -> Vec<Option<usize>> {
            dims.split(|dim| *dim == -1).map(|part| element_count(part).ok()).collect()
        };
        if parts(dims) != parts(shape) {
            let message =
                format!("{kind} '{name}' has dims {dims:?} and a reshape {shape:?} of different size");
            self.error(&field, message)
                .help("the elements between two free dimensions (-1) must stay as many as they are");
        }
    }
}

struct Tensor<'a> {
    kind: &'static str,
    path: &'a str,
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    shape: Option<&'a [i64]>,
    is_shape_tensor: bool,
    is_non_linear_format_io: bool,
}
