//! What backends want of the server's models (`models/1`): a message becomes a load or an unload on a thread of its own.

use std::sync::Arc;

use serde_json::{Value, json};
use trireme_host::{CallReader, Message, Status};
use trireme_protocol::repository::LoadRequest;

use crate::core::Core;
use crate::error::ServeError;

/// A load or unload as a backend describes it.
struct Call {
    /// The model that asks.
    by: String,
    model: String,
    fields: Value,
}

impl Core {
    /// Loads what a backend asks for; the reader hears how it went.
    pub(crate) fn load_for(self: &Arc<Self>, message: Message, reader: CallReader) -> Result<(), ServeError> {
        self.check_control()?;
        let Message { text, buffers } = message;
        let Call { by, model, fields } = read(&text)?;
        let config = match fields.get("config") {
            None | Some(Value::Null) => None,
            Some(Value::String(config)) => Some(config.clone()).filter(|config| !config.is_empty()),
            Some(_) => return Err(malformed("its configuration is no text")),
        };
        let files = fields.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let paths = files.iter().map(|path| path.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        let paths = paths
            .filter(|paths| paths.len() == buffers.len())
            .ok_or_else(|| malformed("every file needs a path and a buffer"))?;
        let files = paths.into_iter().zip(buffers);
        let request = LoadRequest::new(&model, config, files, self.limits())
            .map_err(|error| ServeError::invalid(error.to_string()))?;
        let core = Arc::clone(self);
        answer("load", reader, move || core.load_now(&model, request, Some(&by)))
    }

    /// Unloads what a backend asks for; the reader hears how it went.
    pub(crate) fn unload_for(
        self: &Arc<Self>,
        message: &Message,
        reader: CallReader,
    ) -> Result<(), ServeError> {
        self.check_control()?;
        let Call { by, model, fields } = read(&message.text)?;
        let with_steps = match fields.get("unload_dependents") {
            None => false,
            Some(Value::Bool(with_steps)) => *with_steps,
            Some(_) => return Err(malformed("'unload_dependents' is neither true nor false")),
        };
        let core = Arc::clone(self);
        answer("unload", reader, move || core.unload_now(&model, with_steps, Some(&by)))
    }

    /// Whether a version of a model, or any, takes requests. Other than a client, a backend may still ask while the server
    /// is on its way out.
    pub(crate) fn takes_requests(&self, model: &str, version: Option<i64>) -> bool {
        self.index.load().find(model, version).is_ok_and(|model| !model.is_lost())
    }
}

fn malformed(what: &str) -> ServeError {
    ServeError::invalid(format!("the call of the backend is malformed: {what}"))
}

fn read(text: &str) -> Result<Call, ServeError> {
    let fields: Value = serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    let by = text("by").ok_or_else(|| malformed("it does not say on whose behalf"))?;
    let model = text("model").ok_or_else(|| malformed("it names no model"))?;
    Ok(Call { by, model, fields })
}

/// Does `work` on a thread of its own and tells the reader how it went.
fn answer(
    name: &str,
    reader: CallReader,
    work: impl FnOnce() -> Result<(), ServeError> + Send + 'static,
) -> Result<(), ServeError> {
    // Made on the thread: if there is none, the backend is told by the call itself.
    let work = move || {
        let mut told = Told(Some(reader));
        let result = work();
        told.tell(result);
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| ServeError::internal(format!("no thread to {name} a model: {error}")))
}

/// A reader that is told something in any case: also of work that panics.
struct Told(Option<CallReader>);

impl Told {
    fn tell(&mut self, result: Result<(), ServeError>) {
        let Some(reader) = self.0.take() else { return };
        let text = match result {
            Ok(()) => json!({}),
            Err(error) => {
                let Status { code, message } = error.into();
                json!({ "error": { "code": code.0, "message": message } })
            }
        };
        reader.answer(Message { text: text.to_string(), buffers: Vec::new() }, true);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell(Err(ServeError::internal("the work ended without a result")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_call_is_refused() {
        for (text, says) in [
            ("", "EOF"),
            ("[]", "on whose behalf"),
            (r#"{"model":"m"}"#, "on whose behalf"),
            (r#"{"by":"a"}"#, "names no model"),
            (r#"{"by":"a","model":7}"#, "names no model"),
        ] {
            let error = read(text).err().unwrap().message;
            assert!(error.contains("malformed") && error.contains(says), "{text}: {error}");
        }
        let call = read(r#"{"by":"a","model":"m","config":"{}"}"#).unwrap();
        assert_eq!((call.by.as_str(), call.model.as_str()), ("a", "m"));
    }
}
