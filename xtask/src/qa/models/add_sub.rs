//! `<format>[_nobatch]_<in>_<out>_<out>`: OUTPUT0 is the sum and OUTPUT1 the difference, in versions after the first the
//! other way round.

use std::path::Path;

use anyhow::Result;

use super::model::{
    FLOAT16, FLOAT32, FORMATS, Format, INT8, INT16, INT32, INT64, Model, OBJECT, Tensor, Type, UINT8,
};

/// (input, first output, second output, version policy)
const TYPES: [(Type, Type, Type, Option<&str>); 24] = [
    (UINT8, UINT8, UINT8, Some("latest { num_versions: 3 }")),
    (INT8, INT8, INT8, Some("latest { num_versions: 1 }")),
    (INT16, INT16, INT16, Some("latest { num_versions: 2 }")),
    (INT32, INT32, INT32, Some("all { }")),
    (INT64, INT64, INT64, None),
    (FLOAT16, FLOAT16, FLOAT16, Some("specific { versions: [1] }")),
    (FLOAT32, FLOAT32, FLOAT32, Some("specific { versions: [1, 3] }")),
    (FLOAT16, FLOAT32, FLOAT32, None),
    (INT32, INT8, INT8, None),
    (INT8, INT32, INT32, None),
    (INT32, INT8, INT16, None),
    (FLOAT32, UINT8, UINT8, None),
    (UINT8, FLOAT32, FLOAT32, None),
    (INT32, FLOAT32, FLOAT32, None),
    (FLOAT32, INT32, INT32, None),
    (INT32, FLOAT16, INT16, None),
    (FLOAT32, UINT8, FLOAT16, None),
    (OBJECT, INT32, INT32, None),
    (OBJECT, OBJECT, OBJECT, None),
    (OBJECT, INT32, OBJECT, None),
    (OBJECT, OBJECT, INT32, None),
    (INT32, OBJECT, OBJECT, None),
    (INT32, INT32, OBJECT, None),
    (INT32, OBJECT, INT32, None),
];

pub(super) fn write(data: &Path) -> Result<()> {
    for (repository, width) in [("qa_model_repository", 16), ("qa_variable_model_repository", -1)] {
        for format in FORMATS {
            for types in TYPES {
                for max_batch_size in [8, 0] {
                    if exists(format, [types.0, types.1, types.2], max_batch_size) {
                        model(format, types, max_batch_size, width).write(&data.join(repository))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Which of them upstream can make with that framework.
fn exists(format: Format, types: [Type; 3], max_batch_size: u32) -> bool {
    let has = |wanted: Type| types.contains(&wanted);
    match format.prefix {
        "plan" => {
            let known = [INT8, INT32, UINT8, FLOAT16, FLOAT32];
            types.iter().all(|one| known.contains(one)) && !(has(INT32) && (has(INT8) || has(FLOAT32)))
        }
        "openvino" => types.iter().all(|one| [INT8, INT32, FLOAT32].contains(one)),
        "libtorch" => !has(UINT8) && !has(FLOAT16) && (!has(OBJECT) || max_batch_size == 0),
        _ => !has(UINT8),
    }
}

fn model(
    format: Format,
    types: (Type, Type, Type, Option<&'static str>),
    max_batch_size: u32,
    width: i64,
) -> Model {
    let (input, first, second, version_policy) = types;
    let nobatch = if max_batch_size == 0 { "_nobatch" } else { "" };
    let versioned =
        input == first && first == second && [FLOAT16, FLOAT32, INT8, INT16, INT32].contains(&input);
    let mut output = Tensor::new(format.numbered("OUTPUT", 0), first, &[width]);
    output.labels = true;
    Model {
        name: format!("{}{nobatch}_{}_{}_{}", format.prefix, input.0, first.0, second.0),
        format: Some(format),
        max_batch_size,
        versions: if versioned { 3 } else { 1 },
        version_policy,
        inputs: vec![Tensor::new("INPUT0", input, &[width]), Tensor::new("INPUT1", input, &[width])],
        outputs: vec![output, Tensor::new(format.numbered("OUTPUT", 1), second, &[width])],
        extra: String::new(),
    }
}
