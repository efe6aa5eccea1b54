//! `<format>[_nobatch]_[dyna_]sequence_<type>`: models with the controls of a sequence.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::model::{FORMATS, Format, INT32, Model, OBJECT, Tensor, Type};

pub(super) fn write(data: &Path) -> Result<()> {
    for format in FORMATS.into_iter().filter(|format| !format.is("openvino")) {
        for (repository, width) in
            [("qa_sequence_model_repository", 1), ("qa_variable_sequence_model_repository", -1)]
        {
            for data_type in [INT32, OBJECT] {
                for max_batch_size in [8, 0] {
                    let controls = ["START", "READY"];
                    model(format, "sequence", data_type, max_batch_size, width, &controls, "")
                        .write(&data.join(repository))?;
                }
            }
        }
        let oldest = "  oldest {\n    max_candidate_sequences: 6\n    preferred_batch_size: [ 4 ]\n    \
                      max_queue_delay_microseconds: 0\n  }\n";
        let controls = ["START", "END", "READY", "CORRID"];
        model(format, "dyna_sequence", INT32, 8, 1, &controls, oldest)
            .write(&data.join("qa_dyna_sequence_model_repository"))?;
    }
    Ok(())
}

fn model(
    format: Format,
    kind: &str,
    data_type: Type,
    max_batch_size: u32,
    width: i64,
    controls: &[&str],
    strategy: &str,
) -> Model {
    let nobatch = if max_batch_size == 0 { "_nobatch" } else { "" };
    let torch = format.is("libtorch");
    let (input, output) = if torch { ("INPUT__0", "OUTPUT__0") } else { ("INPUT", "OUTPUT") };
    let mut extra = format!(
        "sequence_batching {{\n  max_sequence_idle_microseconds: 5000000\n{strategy}  control_input [\n"
    );
    for (number, control) in controls.iter().enumerate() {
        let name = if torch { format!("{control}__{}", number + 1) } else { (*control).to_owned() };
        let value =
            if *control == "CORRID" { "data_type: TYPE_UINT64" } else { "int32_false_true: [ 0, 1 ]" };
        let comma = if number + 1 < controls.len() { "," } else { "" };
        let _ = writeln!(
            extra,
            "    {{\n      name: \"{name}\"\n      control [\n        {{\n          kind: \
             CONTROL_SEQUENCE_{control}\n          {value}\n        }}\n      ]\n    }}{comma}"
        );
    }
    extra.push_str("  ]\n}\ninstance_group [\n  {\n    kind: KIND_CPU\n  }\n]\n");
    Model {
        name: format!("{}{nobatch}_{kind}_{}", format.prefix, data_type.0),
        format: Some(format),
        max_batch_size,
        versions: 1,
        version_policy: None,
        inputs: vec![Tensor::new(input, data_type, &[width])],
        outputs: vec![Tensor::new(output, data_type, &[width])],
        extra,
    }
}
