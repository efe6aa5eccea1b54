//! Where the library of ONNX Runtime is.

use std::error::Error as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use serde_json::Value;
use trireme_sdk::{Error, Host, Result};

use crate::options::MOST_THREADS;
use crate::version;

/// The variable that names the library, as `ort` has it.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// What the server gives to every backend and means nothing here.
const OF_THE_SERVER: [&str; 2] = ["auto-complete-config", "min-compute-capability"];

/// The bytes of a library that hold its program headers.
const HEAD: u64 = 1 << 16;
/// A configuration's `max_batch_size` is an int32.
const MOST_ROWS: u32 = i32::MAX as u32;

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
                "default-max-batch-size" => {
                    read.default_max_batch_size = at_most(name, number()?, MOST_ROWS)?
                }
                "enable-global-threadpool" => read.global_pool = at_most(name, number()?, 1)? == 1,
                "intra_op_thread_count" => {
                    read.intra_op_threads = at_most(name, number()?, MOST_THREADS)? as usize
                }
                "inter_op_thread_count" => {
                    read.inter_op_threads = at_most(name, number()?, MOST_THREADS)? as usize
                }
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

fn at_most(name: &str, given: u32, most: u32) -> Result<u32> {
    match given <= most {
        true => Ok(given),
        false => Err(Error::invalid(format!(
            "--backend-config=onnxruntime,{name}={given}: it must be at most {most}"
        ))),
    }
}

/// `libonnxruntime.so.VERSION`, the newest; one without a version only if there is no other.
fn beside(directory: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter_map(|path| Some((numbers(path.file_name()?.to_str()?)?, path))).max().map(|(_, path)| path)
}

/// The numbers behind the name of the library, if it is one.
fn numbers(file: &str) -> Option<Vec<u64>> {
    let rest = file.strip_prefix("libonnxruntime.so")?;
    match rest.strip_prefix('.') {
        Some(numbers) => numbers.split('.').map(|number| number.parse().ok()).collect(),
        None => rest.is_empty().then(Vec::new),
    }
}

/// A file that was copied in part would take the server with it: the dynamic linker maps what the program headers announce,
/// and who reads behind the file's end dies. All else, and names that it searches itself, are left to the linker.
fn whole(path: &Path) -> std::result::Result<(), String> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        file.take(HEAD).read_to_end(&mut head).map(|_| size)
    });
    let Ok(size) = read else { return Ok(()) };
    let Ok(header) = FileHeader64::<Endianness>::parse(head.as_slice()) else { return Ok(()) };
    let endian = header.endian().map_err(|error| error.to_string())?;
    let segments = header.program_headers(endian, head.as_slice()).map_err(|error| error.to_string())?;
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let ends = loaded.map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian)));
    match ends.max().filter(|end| *end > size) {
        Some(end) => Err(format!("the file is cut off: it has {size} bytes, its segments need {end}")),
        None => Ok(()),
    }
}

/// Loads the library, once in the life of the process, and says which version it is. What it has to say goes to the server's log.
pub(crate) fn load(settings: &Settings, host: &Host) -> Result<(Environment, Option<(u32, u32)>)> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let path = settings.find(variable.map(PathBuf::from))?;
    let failed = |error: &dyn std::fmt::Display| {
        Error::unavailable(format!("ONNX Runtime cannot be loaded from '{}': {error}", path.display()))
    };
    let (about, host) = (host, host.clone());
    let log = move |level: LogLevel, _: &str, _: &str, _: &str, message: &str| match level {
        LogLevel::Fatal | LogLevel::Error => host.error(message),
        LogLevel::Warning => host.warn(message),
        _ => host.verbose(message),
    };
    whole(&path).map_err(|what| failed(&what))?;
    let environment = ort::init_from(&path).map_err(|error| match &error {
        // It keeps what the dynamic linker says to itself.
        ort::LoadDynamicError::Dlopen { error: inner, .. } => {
            failed(&inner.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
        _ => failed(&error),
    })?;
    let mut environment = environment.with_name("trireme").with_telemetry(false).with_logger(Arc::new(log));
    if let Some(pool) = settings.pool().map_err(|error| failed(&error))? {
        environment = environment.with_global_thread_pool(pool);
    }
    let environment = environment.build().map_err(|error| failed(&error))?;
    let version = version::of(&path);
    match version {
        Some((major, minor)) => about.info(format!("ONNX Runtime {major}.{minor} from '{}'", path.display())),
        None => about.info(format!("ONNX Runtime of unknown version from '{}'", path.display())),
    }
    Ok((environment, version))
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
        // Not as words: 9 is less than 10.
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.10",
            "libonnxruntime.so.2.old",
        ] {
            std::fs::write(own.join(name), "").unwrap();
        }
        assert_eq!(plain.find(None).unwrap(), own.join("libonnxruntime.so.1.10"));
        assert_eq!(plain.find(Some("/v".into())).unwrap(), PathBuf::from("/v"));
        let named = settings(json!({ "library": "/l", "default-max-batch-size": "7" })).unwrap();
        assert_eq!((named.find(Some("/v".into())).unwrap(), named.default_max_batch_size), ("/l".into(), 7));
        assert!(settings(json!({ "libary": "/l" })).unwrap_err().message.contains("libary is unknown"));
        assert!(settings(json!({ "default-max-batch-size": "x" })).is_err());
        let large = settings(json!({ "default-max-batch-size": "4294967295" })).unwrap_err();
        assert!(large.message.contains("at most 2147483647"), "{large:?}");
        assert!(settings(json!({ "enable-global-threadpool": "2" })).is_err());
        let many = json!({ "intra_op_thread_count": "1025", "enable-global-threadpool": "1" });
        assert!(settings(many).unwrap_err().message.contains("at most 1024"));
        let alone = settings(json!({ "intra_op_thread_count": "2" })).unwrap_err();
        assert!(alone.message.contains("enable-global-threadpool=1"));
        assert!(settings(json!({ "intra_op_thread_count": "2", "enable-global-threadpool": "1" })).is_ok());
    }

    #[test]
    fn a_library_that_was_copied_in_part_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libonnxruntime.so");
        // Any file of this form will do.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        std::fs::write(&file, &own).unwrap();
        assert_eq!(whole(&file), Ok(()));
        std::fs::write(&file, &own[..own.len() / 4]).unwrap();
        assert!(whole(&file).unwrap_err().contains("cut off"));
        assert_eq!(whole(&dir.path().join("nowhere")), Ok(()));
        std::fs::write(&file, "text").unwrap();
        assert_eq!(whole(&file), Ok(()));
    }
}
