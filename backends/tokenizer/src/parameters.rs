//! The parameters of upstream's configurations.

use trireme_llm::checkpoint::Vocabulary;
use trireme_sdk::{Error, ModelContext, Result};

/// Parameters of upstream's models that change nothing here, with the reason.
const IDLE: &[(&str, &str)] = &[
    ("engine_dir", "there is no engine to read"),
    ("multimodal_model_path", "there are no images"),
    ("visual_model_path", "there are no images"),
    ("max_num_images", "there are no images"),
    ("multimodal_encoders_name", "there are no images"),
    ("FORCE_CPU_ONLY_INPUT_TENSORS", "inputs are in the memory of the CPU"),
    ("tokenizer_type", "the tokenizer's own files say it"),
];

/// The value of a parameter. A place-holder that nobody has filled in (`${tokenizer_dir}`) is as good as none.
pub(crate) fn text(context: &ModelContext, name: &str) -> Result<Option<String>> {
    let value = context.config.parameter::<String>(name)?;
    Ok(value.filter(|value| !value.is_empty() && !value.starts_with("${")))
}

/// A flag, in the words that upstream takes.
pub(crate) fn flag(context: &ModelContext, name: &str, default: bool) -> Result<bool> {
    let Some(value) = text(context, name)? else { return Ok(default) };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "y" => Ok(true),
        "false" | "0" | "f" | "no" | "n" => Ok(false),
        _ => Err(Error::invalid(format!(
            "parameter '{name}' has the value '{value}', it must be true or false"
        ))),
    }
}

/// A whole number of at least 1.
pub(crate) fn count(context: &ModelContext, name: &str) -> Result<Option<usize>> {
    let Some(value) = text(context, name)? else { return Ok(None) };
    match value.parse::<usize>() {
        Ok(count) if count > 0 => Ok(Some(count)),
        _ => Err(Error::invalid(format!(
            "parameter '{name}' has the value '{value}', it must be a whole number of at least 1"
        ))),
    }
}

/// Refuses parameters that are not `known`, and warns of those that change nothing.
pub(crate) fn check(context: &ModelContext, known: &[&str]) -> Result<()> {
    for (name, value) in context.config.parameters() {
        if known.contains(&name) {
            if value.starts_with("${") {
                context.host.warn(format!(
                    "model '{}': parameter '{name}' is '{value}', which nobody has filled in: its default holds",
                    context.name
                ));
            }
        } else if let Some((_, why)) = IDLE.iter().find(|(idle, _)| *idle == name) {
            let model = &context.name;
            context.host.warn(format!("model '{model}': parameter '{name}' has no effect: {why}"));
        } else {
            let known = known.join(", ");
            return Err(Error::invalid(format!("unknown parameter '{name}'; known are {known}")));
        }
    }
    Ok(())
}

/// The tokenizer of `tokenizer_dir`: a folder with `tokenizer.json`, a checkpoint or a `.gguf` file. A relative path begins
/// at the version directory, which is also what is taken without the parameter.
pub(crate) fn vocabulary(context: &ModelContext) -> Result<Vocabulary> {
    let given = text(context, "tokenizer_dir")?;
    let path = match &given {
        None => context.version_dir.clone(),
        Some(path) => context.version_dir.join(path),
    };
    Vocabulary::open(&path).map_err(|error| {
        let hint = match given {
            None => "; parameter 'tokenizer_dir' says where the model's checkpoint or tokenizer.json is",
            Some(_) => " (parameter 'tokenizer_dir')",
        };
        Error::invalid(format!("{error}{hint}"))
    })
}
