//! What a framework would read from a model's file, or a Python model would say itself.

use trireme_sdk::{ConfigPatch, DataType, ModelContext, TensorConfig};

/// Completes a configuration without inputs.
pub(crate) fn patch(context: &ModelContext) -> Option<ConfigPatch> {
    if context.config.inputs().is_ok_and(|inputs| !inputs.is_empty()) {
        return None;
    }
    let tensor = |name: &str, data_type, dims: &[i64]| TensorConfig {
        name: name.to_owned(),
        data_type,
        dims: dims.to_vec(),
        optional: false,
    };
    match context.name.as_str() {
        "parameter" => Some(
            ConfigPatch::new()
                .input(tensor("INPUT0", DataType::Fp32, &[1]))
                .output(tensor("key", DataType::Bytes, &[-1]))
                .output(tensor("value", DataType::Bytes, &[-1])),
        ),
        "retry_model" => {
            let patch = ["INPUT0", "INPUT1"]
                .iter()
                .fold(ConfigPatch::new(), |patch, name| patch.input(tensor(name, DataType::Fp32, &[4])));
            let outputs = ["OUTPUT0", "OUTPUT1"].iter();
            Some(outputs.fold(patch, |patch, name| patch.output(tensor(name, DataType::Fp32, &[4]))))
        }
        // `<format>[_nobatch]_<input>_<output>_<output>`, as the suites name their models.
        name => {
            let parts: Vec<&str> = name.split('_').collect();
            let [.., input, first, second] = parts.as_slice() else { return None };
            let (input, first, second) = (data_type(input)?, data_type(first)?, data_type(second)?);
            let patch = if parts.contains(&"nobatch") {
                ConfigPatch::new()
            } else {
                ConfigPatch::new().max_batch_size(8)
            };
            Some(
                patch
                    .input(tensor("INPUT0", input, &[16]))
                    .input(tensor("INPUT1", input, &[16]))
                    .output(tensor("OUTPUT0", first, &[16]))
                    .output(tensor("OUTPUT1", second, &[16])),
            )
        }
    }
}

fn data_type(numpy: &str) -> Option<DataType> {
    Some(match numpy {
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::Uint8,
        "float16" => DataType::Fp16,
        "float32" => DataType::Fp32,
        "object" => DataType::Bytes,
        _ => return None,
    })
}
