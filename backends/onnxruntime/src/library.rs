//! Where the library of ONNX Runtime is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use serde_json::Value;
use trireme_sdk::{Error, Host, Result};

use crate::options::MOST_THREADS;

/// The variable that names the library, as `ort` has it.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// What the server gives to every backend and means nothing here.
const OF_THE_SERVER: [&str; 2] = ["auto-complete-config", "min-compute-capability"];

/// `--backend-config=onnxruntime,…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    library: Option<PathBuf>,
    directory: PathBuf,
    /// The largest batch of a model that can batch and does not say how much; 0: none.
    pub(crate) default_max_batch_size: u32,
    /// One pool of threads for all sessions, in the place of one for each.
    pub(crate) global_pool: bool,
    /// Threads of that pool; 0: as many as the process may use.
    intra_op_threads: usize,
    inter_op_threads: usize,
}

impl Settings {
    pub(crate) fn read(settings: &Value) -> Result<Self> {
        let mut read = Self { default_max_batch_size: 4, ..Self::default() };
        for (name, value) in settings["cmdline"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let number = || {
                let wrong =
                    |_| format!("--backend-config=onnxruntime,{name}={value}: a whole number is expected");
                value.parse::<u32>().map_err(|error| Error::invalid(wrong(error)))
            };
            match name.as_str() {
                "library" => read.library = Some(value.into()),
                "backend-directory" => read.directory = PathBuf::from(value).join("onnxruntime"),
                "default-max-batch-size" => read.default_max_batch_size = number()?,
                "enable-global-threadpool" => read.global_pool = number()? != 0,
                "intra_op_thread_count" => read.intra_op_threads = threads(name, number()?)?,
                "inter_op_thread_count" => read.inter_op_threads = threads(name, number()?)?,
                name if OF_THE_SERVER.contains(&name) => {}
                name => {
                    return Err(Error::invalid(format!(
                        "--backend-config=onnxruntime,{name} is unknown: there are library, default-max-batch-size, \
                         enable-global-threadpool, intra_op_thread_count and inter_op_thread_count"
                    )));
                }
            }
        }
        if !read.global_pool && (read.intra_op_threads, read.inter_op_threads) != (0, 0) {
            return Err(Error::invalid(
                "--backend-config=onnxruntime,intra_op_thread_count and inter_op_thread_count are of the pool of all \
                 sessions, which enable-global-threadpool=1 turns on; a model has parameters of these names",
            ));
        }
        Ok(read)
    }

    /// The pool of all sessions, if there is to be one.
    fn pool(&self) -> ort::Result<Option<GlobalThreadPoolOptions>> {
        if !self.global_pool {
            return Ok(None);
        }
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |given: usize| if given == 0 { all } else { given };
        let pool = GlobalThreadPoolOptions::default().with_intra_threads(threads(self.intra_op_threads))?;
        pool.with_inter_threads(threads(self.inter_op_threads)).map(Some)
    }

    /// The library: the one that was named, or one that lies beside this backend.
    fn find(&self, variable: Option<PathBuf>) -> Result<PathBuf> {
        if let Some(path) = self.library.clone().or(variable) {
            return Ok(path);
        }
        beside(&self.directory).ok_or_else(|| {
            Error::unavailable(format!(
                "there is no libonnxruntime.so in '{}': put it there (it is in the PyPI package onnxruntime, below \
                 onnxruntime/capi), or name it by --backend-config=onnxruntime,library=PATH",
                self.directory.display()
            ))
        })
    }
}

fn threads(name: &str, given: u32) -> Result<usize> {
    let wrong = || {
        Error::invalid(format!("--backend-config=onnxruntime,{name}={given}: at most {MOST_THREADS} works"))
    };
    usize::try_from(given).ok().filter(|given| *given <= MOST_THREADS).ok_or_else(wrong)
}

/// `libonnxruntime.so`, or with a version behind it.
fn beside(directory: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        })
        .collect();
    found.sort();
    found.pop()
}

/// Loads the library, once in the life of the process. What it has to say goes to the server's log.
pub(crate) fn load(settings: &Settings, host: &Host) -> Result<Environment> {
    let path = settings.find(std::env::var_os(VARIABLE).map(PathBuf::from))?;
    let failed = |error: &dyn std::fmt::Display| {
        Error::unavailable(format!("ONNX Runtime cannot be loaded from '{}': {error}", path.display()))
    };
    let host = host.clone();
    let log = move |level: LogLevel, _: &str, _: &str, _: &str, message: &str| match level {
        LogLevel::Fatal | LogLevel::Error => host.error(message),
        LogLevel::Warning => host.warn(message),
        _ => host.verbose(message),
    };
    let environment = ort::init_from(&path).map_err(|error| failed(&error))?;
    let mut environment = environment.with_name("trireme").with_telemetry(false).with_logger(Arc::new(log));
    if let Some(pool) = settings.pool().map_err(|error| failed(&error))? {
        environment = environment.with_global_thread_pool(pool);
    }
    environment.build().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_library_is_named_or_lies_beside() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("onnxruntime");
        let settings = |more: Value| {
            let mut cmdline = json!({ "backend-directory": dir.path() });
            more.as_object().unwrap().iter().for_each(|(key, value)| cmdline[key] = value.clone());
            Settings::read(&json!({ "cmdline": cmdline }))
        };
        let plain = settings(json!({})).unwrap();
        assert!(plain.find(None).unwrap_err().message.contains("PyPI package onnxruntime"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("libonnxruntime.so.1.2"), "").unwrap();
        assert_eq!(plain.find(None).unwrap(), own.join("libonnxruntime.so.1.2"));
        assert_eq!(plain.find(Some("/v".into())).unwrap(), PathBuf::from("/v"));
        let named = settings(json!({ "library": "/l", "default-max-batch-size": "7" })).unwrap();
        assert_eq!((named.find(Some("/v".into())).unwrap(), named.default_max_batch_size), ("/l".into(), 7));
        assert!(settings(json!({ "libary": "/l" })).unwrap_err().message.contains("libary is unknown"));
        assert!(settings(json!({ "default-max-batch-size": "x" })).is_err());
        let many = json!({ "intra_op_thread_count": "1025", "enable-global-threadpool": "1" });
        assert!(settings(many).unwrap_err().message.contains("at most 1024"));
        let alone = settings(json!({ "intra_op_thread_count": "2" })).unwrap_err();
        assert!(alone.message.contains("enable-global-threadpool=1"));
        assert!(settings(json!({ "intra_op_thread_count": "2", "enable-global-threadpool": "1" })).is_ok());
    }
}
