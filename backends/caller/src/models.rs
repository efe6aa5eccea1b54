//! Models that load and unload others; the fixture of `models/1`. A request says by its parameters what is to be done:
//! `do` is `load`, `load_later` (by callback), `unload`, `ready` or `nothing`, of the model `of`, with `config`, and `file` as the
//! contents of `1/data`. The model's own parameters `first` and `last` name models that are loaded before it is, and unloaded when its
//! instance ends.

use trireme_sdk::{Error, ErrorCode, ModelContext, ModelLoad, Models, Parameter, Request, Response, Result};

/// What a model may do to others.
#[derive(Clone)]
pub(crate) struct Changing {
    models: Result<Models>,
    last: String,
}

/// An instance, at whose end a model is unloaded.
pub(crate) struct AtEnd(pub(crate) Changing);

impl Changing {
    pub(crate) fn load(context: &ModelContext) -> Result<Self> {
        let parameter = |name: &str| context.config.parameter::<String>(name).map(Option::unwrap_or_default);
        let models = context.host.models(&context.name);
        let first = parameter("first")?;
        if !first.is_empty() {
            models.clone()?.load_and_wait(ModelLoad::new(&first))?;
        }
        Ok(Self { models, last: parameter("last")? })
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let (Ok(models), false) = (&self.0.models, self.0.last.is_empty()) {
            let _ = models.unload_and_wait(&self.0.last, false);
        }
    }
}

impl AtEnd {
    /// Does what the request asks for; nothing is done for one that asks for nothing.
    pub(crate) fn execute(&self, request: Request) -> Option<Request> {
        let told = request.parameters();
        let text = |key: &str| match told.iter().find(|(name, _)| name == key) {
            Some((_, Parameter::String(text))) => text.clone(),
            _ => String::new(),
        };
        let (what, of) = (text("do"), text("of"));
        if what.is_empty() {
            return Some(request);
        }
        if what == "nothing" {
            say(request, Ok(true));
            return None;
        }
        let mut load = ModelLoad::new(&of);
        if !text("config").is_empty() {
            load = load.config(&text("config"));
        }
        if !text("file").is_empty() {
            load = load.file("1/data", text("file").into_bytes());
        }
        let models = match self.0.models.clone() {
            Ok(models) => models,
            Err(error) => {
                request.fail(error);
                return None;
            }
        };
        match what.as_str() {
            "load" => say(request, models.load_and_wait(load).map(|()| true)),
            "load_later" => models.load(load, |result| say(request, result.map(|()| true))),
            "unload" => say(request, models.unload_and_wait(&of, false).map(|()| true)),
            "ready" => say(request, models.is_ready(&of, None)),
            _ => say(request, Err(Error { code: ErrorCode::InvalidArg, message: format!("do: '{what}'") })),
        }
        None
    }
}

/// One number for each row: 1 if it went well, or is so.
fn say(request: Request, result: Result<bool>) {
    request.answer(|request| {
        let input = request.input("INPUT0")?;
        let values =
            vec![f32::from(u8::from(result?)); input.shape().iter().product::<i64>().max(0) as usize];
        Response::new().tensor("OUTPUT0", input.shape(), values)
    });
}
