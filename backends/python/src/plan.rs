//! What a model is run with.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use trireme_sdk::{Error, Host, ModelContext, Result};

use crate::environments::Environment;
use crate::metrics::Metrics;
use crate::package::Package;
use crate::settings::{Interpreter, Settings};

/// The script of a model that names none.
const SCRIPT: &str = "model.py";

/// A model, as its processes are started.
pub(crate) struct Plan {
    pub(crate) host: Host,
    pub(crate) settings: Settings,
    /// Whether inputs on a GPU are given to the model there.
    pub(crate) keeps_gpu: bool,
    pub(crate) interpreter: PathBuf,
    /// Where the interpreter is, if that was unpacked: it stays as long as the model.
    pub(crate) environment: Option<Arc<Environment>>,
    pub(crate) metrics: Arc<Metrics>,
    package: Arc<Package>,
    pub(crate) name: String,
    version: i64,
    setup: Value,
}

impl Plan {
    pub(crate) fn new(context: &ModelContext, settings: &Settings, package: &Arc<Package>) -> Result<Self> {
        let config = context.config.json();
        let file =
            config["default_model_filename"].as_str().filter(|name| !name.is_empty()).unwrap_or(SCRIPT);
        let script = context.version_dir.join(file);
        if !script.is_file() {
            return Err(Error::invalid(format!(
                "model '{}' has no script: '{}' does not exist. Its class TritonPythonModel belongs there; another name \
                 is given by default_model_filename",
                context.name,
                script.display()
            )));
        }
        let keeps_gpu = Settings::keeps_gpu(context)?;
        let setup = json!({
            "name": context.name,
            "version": context.version.to_string(),
            "script": script,
            "model_dir": context.model_dir,
            "version_dir": context.version_dir,
            "config": config.to_string(),
            "keeps_gpu": keeps_gpu,
        });
        let Interpreter { program, environment } = settings.interpreter(context)?;
        Ok(Self {
            host: context.host.clone(),
            settings: settings.clone(),
            keeps_gpu,
            interpreter: program,
            environment,
            metrics: Arc::new(Metrics::new(&context.host)),
            package: Arc::clone(package),
            name: context.name.clone(),
            version: context.version,
            setup,
        })
    }

    /// The model in the log.
    pub(crate) fn label(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }

    /// What the interpreter runs.
    pub(crate) fn script(&self) -> PathBuf {
        self.package.start()
    }

    /// What a process is told at first: to complete the configuration, or to be an instance.
    pub(crate) fn setup(&self, complete: bool, own: &Value) -> Value {
        let mut setup = self.setup.clone();
        setup["complete"] = complete.into();
        for (key, value) in own.as_object().into_iter().flatten() {
            setup[key] = value.clone();
        }
        setup
    }
}
