//! What is tested: a library, and a model of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use trireme_host::abi::LogLevel;
use trireme_host::{Backend, Library, LoadError, LoadOptions, ModelArgs, Status, check};

use crate::client::Services;
use crate::config::Config;
use crate::declared::Declared;

/// Why nothing can be tested.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is no backend for this server; this is what the check of the probe fails with.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// The file is not called as a backend's library is.
    #[error("'{0}' is not called libtrireme_NAME.so, so a server would not find it")]
    Name(PathBuf),
    /// The backend says no.
    #[error("{call} failed: {status}")]
    Backend {
        /// Which call.
        call: &'static str,
        /// What it says.
        status: Status,
    },
    /// The configuration cannot be read.
    #[error("{0}")]
    Config(String),
    /// `conformance.json` cannot be read.
    #[error("{path}: {what}")]
    Declared {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The process has decided before that backends are not watched.
    #[error("{} is 0 in this process, and the kit needs it", check::VARIABLE)]
    NotWatched,
}

/// Where the backend comes from.
#[derive(Clone)]
pub enum Source<'a> {
    /// A file, called `libtrireme_NAME.so`.
    Library(&'a Path),
    /// It is loaded already, as one that is linked into this program is.
    Loaded(Arc<Library>),
}

/// A backend, and a model of it if there is one.
pub struct Subject {
    pub(crate) library: Arc<Library>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) declared: Declared,
    pub(crate) config: Option<Config>,
    pub(crate) directory: PathBuf,
    pub(crate) version: i64,
}

/// A backend's log goes to standard error.
static SERVICES: LazyLock<Services> = LazyLock::new(|| Services::new(LogLevel::WARN, log));

#[expect(clippy::print_stderr, reason = "shown with a check that fails")]
fn log(level: LogLevel, source: &str, message: &str) {
    // The layer's findings become the outcome of the check.
    if level <= LogLevel::WARN && source != "abi-check" {
        eprintln!("log level {}, {source}: {message}", level.0);
    }
}

/// A backend is created once in a process.
static BACKENDS: LazyLock<Mutex<HashMap<usize, Arc<Backend>>>> = LazyLock::new(Mutex::default);

impl Subject {
    /// Loads a library and creates its backend. `directory` is that of a model, whose `conformance.json` is read.
    ///
    /// # Errors
    /// It cannot be loaded, or `conformance.json` cannot be read.
    pub fn open(source: Source<'_>, directory: Option<&Path>) -> Result<Self, Problem> {
        let mut declared = Declared::default();
        if let Some(directory) = directory {
            let path = directory.join("conformance.json");
            let wrong = |what: String| Problem::Declared { path: path.clone(), what };
            match std::fs::read_to_string(&path) {
                Ok(text) => declared = Declared::parse(&text).map_err(wrong)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        Self::with(source, directory, declared)
    }

    /// As [`Subject::open`], with what `conformance.json` would say.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn with(source: Source<'_>, directory: Option<&Path>, declared: Declared) -> Result<Self, Problem> {
        if !check::turn_on() {
            return Err(Problem::NotWatched);
        }
        let directory_of_backends = match source {
            Source::Library(path) => backends_around(path),
            Source::Loaded(_) => None,
        };
        let library = match source {
            Source::Library(path) => Library::open(path, name_of(path)?, &LoadOptions::default())?,
            Source::Loaded(library) => library,
        };
        // Libraries are never unloaded, so an address stands for one of them only.
        let key = Arc::as_ptr(&library).addr();
        let mut backends = BACKENDS.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = match backends.get(&key) {
            Some(backend) => Arc::clone(backend),
            None => {
                let backend = Backend::create(
                    Arc::clone(&library),
                    &*SERVICES,
                    &settings(&declared, directory_of_backends),
                )
                .map_err(|status| Problem::Backend { call: "BackendVtable.create", status })?;
                backends.insert(key, Arc::clone(&backend));
                backend
            }
        };
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let version = newest_version(&directory);
        Ok(Self { library, backend, declared, config: None, directory, version })
    }

    /// The backend's name.
    pub fn backend_name(&self) -> &str {
        self.library.name()
    }

    /// What the backend proposes for a model's configuration, a JSON object or none.
    ///
    /// # Errors
    /// What the backend says.
    pub fn complete_config(&self, name: &str, config_json: &str) -> Result<Option<String>, Problem> {
        let (directory, version_dir) = (&self.directory, self.version_dir());
        let args = ModelArgs {
            name,
            version: self.version,
            model_dir: directory,
            version_dir: &version_dir,
            config_json,
        };
        let call = "BackendVtable.complete_config";
        self.backend.complete_config(&args).map_err(|status| Problem::Backend { call, status })
    }

    /// Sets the model's whole configuration, as JSON with protobuf's field names.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn set_config(&mut self, config_json: &str) -> Result<(), Problem> {
        self.config = Some(Config::parse(config_json).map_err(Problem::Config)?);
        Ok(())
    }

    /// The directory of the model's version.
    pub fn version_dir(&self) -> PathBuf {
        self.directory.join(self.version.to_string())
    }

    /// How long a request may take, and a call of the backend.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.declared.answer_seconds.unwrap_or(20))
    }
}

/// As a server gives them: texts, under the key that Triton has for them.
fn settings(declared: &Declared, backends: Option<String>) -> String {
    let mut settings = declared.settings.clone();
    if let Some(backends) = backends {
        settings.entry("backend-directory".to_owned()).or_insert(backends);
    }
    settings.entry("auto-complete-config".to_owned()).or_insert_with(|| "true".to_owned());
    settings.entry("default-max-batch-size".to_owned()).or_insert_with(|| "4".to_owned());
    serde_json::json!({ "cmdline": settings }).to_string()
}

/// The folder that a server would be given for this library: it lies there in a folder of the backend's name.
fn backends_around(library: &Path) -> Option<String> {
    let library = library.canonicalize().ok()?;
    let folder = library.parent()?;
    let own = folder.file_name()?.to_str()? == name_of(&library).ok()?;
    folder.parent().filter(|_| own).map(|backends| backends.display().to_string())
}

/// The backend's name in a library's file name.
fn name_of(path: &Path) -> Result<&str, Problem> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix("libtrireme_")?.strip_suffix(".so"))
        .ok_or_else(|| Problem::Name(path.to_owned()))
}

fn newest_version(directory: &Path) -> i64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    numbers.max().unwrap_or(1)
}
