//! `GET /v1/models` and `/v1/models/MODEL`.

use serde_json::{Value, json};
use trireme_runtime::{Core, Served};

use crate::answer::{Answer, Failure, json as json_answer};

/// The models that answer calls of the API.
pub(crate) fn models(core: &Core) -> Answer {
    let data: Vec<Value> = core.openai_models().iter().map(|model| describe(model.name(), model)).collect();
    json_answer(json!({ "object": "list", "data": data }).to_string())
}

/// One of them.
pub(crate) fn model(core: &Core, name: &str) -> Result<Answer, Failure> {
    let served = find(core, name)?;
    Ok(json_answer(describe(name, &served).to_string()))
}

fn describe(id: &str, model: &Served) -> Value {
    json!({ "id": id, "object": "model", "created": model.loaded_s(), "owned_by": "trireme" })
}

/// The version that a name means: `NAME`, or `NAME:VERSION` if no model has that name.
///
/// # Errors
/// 404 if there is no such model or it does not answer the API, 503 if it is not ready.
pub(crate) fn find(core: &Core, id: &str) -> Result<std::sync::Arc<Served>, Failure> {
    let plain = core.model(id, None);
    let found = match (plain, versioned(id)) {
        (Err(error), Some((name, version))) => core.model(name, Some(version)).map_err(|_| error),
        (plain, _) => plain,
    };
    let error = match found {
        Ok(model) if model.openai_endpoints().is_empty() => None,
        Ok(model) => return Ok(model),
        Err(error) => Some(error),
    };
    match error {
        Some(error) if error.status == trireme_protocol::StatusCode::Unavailable => Err(error.into()),
        error => {
            let why = error.map(|error| format!(" ({})", error.message));
            let why = why.unwrap_or_else(|| " in this API: its backend answers tensors only".to_owned());
            let text = format!("The model '{id}' does not exist{why}.{}", known(core));
            Err(Failure::new(http::StatusCode::NOT_FOUND, text).about("model").coded("model_not_found"))
        }
    }
}

fn versioned(id: &str) -> Option<(&str, i64)> {
    let (name, version) = id.rsplit_once(':')?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Some((name, version.parse().ok()?))).flatten()
}

fn known(core: &Core) -> String {
    let models = core.openai_models();
    let names: Vec<String> = models.iter().take(8).map(|model| format!("'{}'", model.name())).collect();
    match names.as_slice() {
        [] => " No model that is ready answers this API.".to_owned(),
        names if names.len() < models.len() => format!(" There are {} and more.", names.join(", ")),
        names => format!(" There is {}.", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_digits_behind_the_last_colon() {
        assert_eq!(versioned("m:2"), Some(("m", 2)));
        assert_eq!(versioned("a:b:12"), Some(("a:b", 12)));
        for plain in ["m", "m:", "m:x", "m:99999999999999999999"] {
            assert_eq!(versioned(plain), None, "{plain}");
        }
    }
}
