//! A model's folder: a configuration with one field a line, as the suites' scripts edit it, and a file a version.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// The formats of upstream's models: prefix of the name, platform, file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) prefix: &'static str,
    platform: &'static str,
    file: &'static str,
}

pub(super) const FORMATS: [Format; 6] = [
    Format { prefix: "graphdef", platform: "tensorflow_graphdef", file: "model.graphdef" },
    Format { prefix: "savedmodel", platform: "tensorflow_savedmodel", file: "model.savedmodel" },
    Format { prefix: "onnx", platform: "onnxruntime_onnx", file: "model.onnx" },
    Format { prefix: "libtorch", platform: "pytorch_libtorch", file: "model.pt" },
    Format { prefix: "plan", platform: "tensorrt_plan", file: "model.plan" },
    Format { prefix: "openvino", platform: "openvino", file: "model.xml" },
];

impl Format {
    pub(super) fn is(self, prefix: &str) -> bool {
        self.prefix == prefix
    }

    /// TorchScript names its tensors by number.
    pub(super) fn numbered(self, name: &str, number: usize) -> String {
        if self.is("libtorch") { format!("{name}__{number}") } else { format!("{name}{number}") }
    }
}

/// A type of elements: as numpy calls it, and as a configuration does.
pub(super) type Type = (&'static str, &'static str);

pub(super) const BOOL: Type = ("bool", "TYPE_BOOL");
pub(super) const INT8: Type = ("int8", "TYPE_INT8");
pub(super) const INT16: Type = ("int16", "TYPE_INT16");
pub(super) const INT32: Type = ("int32", "TYPE_INT32");
pub(super) const INT64: Type = ("int64", "TYPE_INT64");
pub(super) const UINT8: Type = ("uint8", "TYPE_UINT8");
pub(super) const FLOAT16: Type = ("float16", "TYPE_FP16");
pub(super) const FLOAT32: Type = ("float32", "TYPE_FP32");
pub(super) const OBJECT: Type = ("object", "TYPE_STRING");

#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) data_type: Type,
    pub(super) dims: Vec<i64>,
    /// What the model itself sees.
    pub(super) reshape: Option<Vec<i64>>,
    pub(super) labels: bool,
}

impl Tensor {
    pub(super) fn new(name: impl Into<String>, data_type: Type, dims: &[i64]) -> Self {
        Self { name: name.into(), data_type, dims: dims.to_vec(), reshape: None, labels: false }
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "  {{\n    name: \"{}\"", self.name);
        let _ = writeln!(text, "    data_type: {}\n    dims: [ {} ]", self.data_type.1, dims(&self.dims));
        if let Some(shape) = &self.reshape {
            let _ = writeln!(text, "    reshape: {{ shape: [ {} ] }}", dims(shape));
        }
        if self.labels {
            let _ = writeln!(text, "    label_filename: \"output0_labels.txt\"");
        }
    }
}

pub(super) fn dims(dims: &[i64]) -> String {
    dims.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) struct Model {
    pub(super) name: String,
    /// None: an ensemble, or the backend `identity`, as `extra` says.
    pub(super) format: Option<Format>,
    pub(super) max_batch_size: u32,
    pub(super) versions: u32,
    pub(super) version_policy: Option<&'static str>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
    /// Further fields, whole lines.
    pub(super) extra: String,
}

impl Model {
    pub(super) fn write(&self, repository: &Path) -> Result<()> {
        let folder = repository.join(&self.name);
        for number in 1..=self.versions {
            let version = folder.join(number.to_string());
            fs::create_dir_all(&version)?;
            if let Some(format) = self.format {
                // What the model does follows from the file, wherever a suite puts it.
                fs::write(version.join(format.file), format!("{number}\n"))?;
            }
        }
        let mut text = format!("name: \"{}\"\n", self.name);
        if let Some(format) = self.format {
            let _ = writeln!(text, "platform: \"{}\"", format.platform);
        }
        let _ = writeln!(text, "max_batch_size: {}", self.max_batch_size);
        if let Some(policy) = self.version_policy {
            let _ = writeln!(text, "version_policy: {{ {policy} }}");
        }
        for (field, tensors) in [("input", &self.inputs), ("output", &self.outputs)] {
            let _ = writeln!(text, "{field} [");
            for (number, tensor) in tensors.iter().enumerate() {
                tensor.write(&mut text);
                text.push_str(if number + 1 < tensors.len() { "  },\n" } else { "  }\n" });
            }
            text.push_str("]\n");
        }
        text.push_str(&self.extra);
        fs::write(folder.join("config.pbtxt"), text)?;
        if self.outputs.iter().any(|output| output.labels) {
            let labels: String = (0..16).map(|number| format!("label{number}\n")).collect();
            fs::write(folder.join("output0_labels.txt"), labels)?;
        }
        Ok(())
    }
}
