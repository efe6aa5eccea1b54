use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use trireme_conformance::client::{Live, Services};
use trireme_host::abi::{LogLevel, Probe};
use trireme_host::{Backend, Library, LoadOptions, ModelArgs, Status};

use crate::config::Config;
use crate::instances::{Instances, Span};
use crate::request::{Pending, Request};

/// A backend's log goes to the test's output.
static SERVICES: LazyLock<Services> = LazyLock::new(|| Services::new(LogLevel::VERBOSE, log));

#[expect(clippy::print_stdout, reason = "the test runner shows it with a test that fails")]
fn log(level: LogLevel, source: &str, message: &str) {
    println!("log level {}, {source}: {message}", level.0);
}

/// How long a backend may take after `drain` until the last thread has let go.
const PATIENCE: Duration = Duration::from_secs(2);

/// A loaded model with its instances (as many as `instance_group` says, one without it). When it is dropped, the
/// instances are drained, and whatever the backend still holds then fails the test.
pub struct Model {
    pub(crate) config: Arc<Config>,
    pub(crate) live: Live,
    instances: Option<Instances>,
}

impl Model {
    /// Loads a model with the backend that is linked into the test: `&my_crate::trireme_backend_probe`. `config` is a
    /// model configuration as JSON with the field names of `config.pbtxt`.
    ///
    /// # Errors
    /// What the backend says.
    pub fn load(probe: &'static Probe, config: &str) -> Result<Self, Status> {
        // SAFETY: probes are made by `export_backend!`, from the functions of the backend.
        let library = unsafe { Library::from_static(probe) };
        Self::start(library.unwrap_or_else(|error| panic!("{error}")), config, Path::new("."))
    }

    /// Loads a model with the backend `name` that was built to `library`; its files are in `directory`/1.
    ///
    /// # Errors
    /// What the backend says.
    pub fn open(library: &Path, name: &str, config: &str, directory: &Path) -> Result<Self, Status> {
        let library = Library::open(library, name, &LoadOptions::default());
        Self::start(library.unwrap_or_else(|error| panic!("{error}")), config, directory)
    }

    fn start(library: Arc<Library>, config_json: &str, directory: &Path) -> Result<Self, Status> {
        let config = Arc::new(Config::parse(config_json));
        let backend = Backend::create(library, &*SERVICES, r#"{"cmdline": {}}"#)?;
        let version_dir = directory.join("1");
        let args = ModelArgs {
            name: "test",
            version: 1,
            model_dir: directory,
            version_dir: &version_dir,
            config_json,
        };
        let model = backend.load(&args)?;
        let instances = Some(Instances::start(&model, config.instances)?);
        Ok(Self { config, live: Live::default(), instances })
    }

    /// A request without inputs.
    pub fn request(&self) -> Request<'_> {
        Request::new(self)
    }

    /// Sends requests as one batch.
    pub fn send(&self, batch: Vec<Request<'_>>) -> Vec<Pending> {
        let (items, pending) = batch
            .into_iter()
            .map(|request| {
                let (_, item, pending) = request.into_item();
                (item, pending)
            })
            .unzip();
        self.submit(items);
        pending
    }

    pub(crate) fn submit(&self, batch: Vec<trireme_host::Item>) {
        self.instances.as_ref().expect("there until it is dropped").submit(batch);
    }

    /// Runs what was sent, drains the instances and says when each `execute` ran, in the order of their ends.
    pub fn finish(mut self) -> Vec<Span> {
        let instances = self.instances.as_mut().expect("there until it is dropped");
        instances.close();
        instances.spans()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        drop(self.instances.take());
        // A test that fails already has its reason.
        if std::thread::panicking() {
            return;
        }
        let left = self.live.settle(PATIENCE);
        assert_eq!(left, 0, "requests, responders or input buffers that the backend still holds");
    }
}
