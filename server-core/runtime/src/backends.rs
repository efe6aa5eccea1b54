use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use trireme_host::{Backend, Library, LoadOptions};

use crate::error::ServeError;
use crate::options::CoreOptions;
use crate::services::Services;
use crate::statistics::lock;

/// The backends that are loaded, by the path of their library. A backend is created once an image.
pub(crate) struct Backends {
    services: &'static Services,
    load: LoadOptions,
    config: BTreeMap<String, BTreeMap<String, String>>,
    auto_complete: bool,
    directory: PathBuf,
    loaded: Mutex<Vec<Loaded>>,
}

/// An image and the backend that was created from it. Who creates it holds the inner lock, so that two models do not
/// create one backend twice; those of other backends do not wait.
struct Loaded {
    library: Arc<Library>,
    backend: Arc<Mutex<Option<Arc<Backend>>>>,
}

impl Backends {
    pub(crate) fn new(options: &CoreOptions, services: &'static Services) -> Self {
        Self {
            services,
            load: LoadOptions { cache_dir: options.backend_cache.clone() },
            config: options.backend_config.clone(),
            auto_complete: options.auto_complete,
            directory: options.backend_directory.clone(),
            loaded: Mutex::default(),
        }
    }

    /// The backend in the library at `path`; loads it if it is new or has changed.
    pub(crate) fn get(&self, path: &Path, name: &str) -> Result<Arc<Backend>, ServeError> {
        let library =
            Library::open(path, name, &self.load).map_err(|error| ServeError::invalid(error.to_string()))?;
        let slot = self.slot(&library);
        let mut slot = lock(&slot);
        if let Some(backend) = &*slot {
            return Ok(Arc::clone(backend));
        }
        let backend = Backend::create(library, self.services, &self.settings(name))?;
        *slot = Some(Arc::clone(&backend));
        Ok(backend)
    }

    fn slot(&self, library: &Arc<Library>) -> Arc<Mutex<Option<Arc<Backend>>>> {
        let mut loaded = lock(&self.loaded);
        if let Some(known) = loaded.iter().find(|known| Arc::ptr_eq(&known.library, library)) {
            return Arc::clone(&known.backend);
        }
        let backend = Arc::default();
        loaded.push(Loaded { library: Arc::clone(library), backend: Arc::clone(&backend) });
        backend
    }

    /// The settings of a backend as JSON, in the form that Triton hands them over: all values are strings.
    fn settings(&self, name: &str) -> String {
        let mut settings = BTreeMap::new();
        settings.insert("auto-complete-config".to_owned(), self.auto_complete.to_string());
        settings.insert("backend-directory".to_owned(), self.directory.display().to_string());
        settings.insert("default-max-batch-size".to_owned(), "4".to_owned());
        for scope in ["", name] {
            settings
                .extend(self.config.get(scope).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        }
        serde_json::json!({ "cmdline": settings }).to_string()
    }
}
