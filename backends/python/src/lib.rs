//! Models written in Python: the class `TritonPythonModel` of a `model.py`, as Triton's Python backend runs it.
//!
//! ```text
//!  instance thread ── batch ──▶ socket ──▶ process of the instance (python/trireme_python)
//!                                             │ responses, calls to other models, log, metrics
//!  supervisor thread ◀────────── socket ◀─────┘
//! ```
//! Each instance has a process of its own. Small tensors go over the socket, large ones through memory that both share
//! ([`slabs`]). When a process ends, its requests are answered with an error and it is started again ([`supervisor`]).
#![forbid(unsafe_code)]

mod calls;
mod environments;
mod gpu;
mod incoming;
mod instance;
mod metrics;
mod models;
mod outgoing;
mod package;
mod patch;
mod plan;
mod process;
mod requests;
mod settings;
mod slabs;
mod supervisor;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use trireme_sdk::{
    Backend, BackendContext, ConfigPatch, Devices, Error, Info, InstanceContext, Model, ModelContext, Result,
};

use crate::instance::Instance;
use crate::package::Package;
use crate::plan::Plan;
use crate::settings::Settings;

/// The backend: it keeps the Python files that every process begins with.
pub struct Python {
    settings: Settings,
    package: Arc<Package>,
}

/// A model and version.
pub struct PythonModel {
    plan: Arc<Plan>,
    outputs: usize,
}

impl Backend for Python {
    type Model = PythonModel;

    fn info() -> Info {
        // Whether a device is used is the model's own affair; the kind of the instance is only passed on.
        Info { devices: Devices::CpuAndGpu, reads_gpu: true, ..Info::default() }
    }

    fn create(context: BackendContext) -> Result<Self> {
        let settings = Settings::read(&context.host, &context.settings)?;
        let package = Package::write()
            .map_err(|error| Error::internal(format!("cannot write the backend's Python files: {error}")))?;
        Ok(Self { settings, package: Arc::new(package) })
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        let plan = Plan::new(context, &self.settings, &self.package)?;
        let completed = supervisor::completed(&plan)?;
        let completed: Value = serde_json::from_str(&completed)
            .map_err(|error| Error::invalid(format!("auto_complete_config: {error}")))?;
        let patch = patch::between(context.config.json(), &completed)?;
        let now = Duration::from_nanos(context.host.now_ns());
        self.settings.environments.await_load(&context.name, now, plan.environment.clone());
        Ok(patch)
    }

    fn load(&self, context: ModelContext) -> Result<PythonModel> {
        let plan = Plan::new(&context, &self.settings, &self.package);
        let now = Duration::from_nanos(context.host.now_ns());
        self.settings.environments.await_load(&context.name, now, None);
        let plan = plan?;
        let outputs = context.config.json()["output"].as_array().map_or(0, Vec::len);
        if outputs > usize::from(u16::MAX - 1) {
            return Err(Error::invalid(format!(
                "the model has {outputs} outputs, at most 65534 are possible"
            )));
        }
        Ok(PythonModel { plan: Arc::new(plan), outputs })
    }
}

impl Model for PythonModel {
    type Instance = Instance;

    fn create_instance(&self, context: InstanceContext) -> Result<Instance> {
        Instance::new(&self.plan, self.outputs, &context)
    }
}

trireme_sdk::export_backend!(Python, name = "python");
