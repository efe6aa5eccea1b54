//! What the command line and a model's configuration say about Python.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use trireme_sdk::{Error, Host, ModelContext, Result};

use crate::environments::{self, Environment, Environments, Kind};

/// The parameter of a model that names the environment it runs in.
const ENVIRONMENT: &str = "EXECUTION_ENV_PATH";
const FORCE_CPU: &str = "FORCE_CPU_ONLY_INPUT_TENSORS";
/// Stands for the model's directory in a path.
const MODEL_DIRECTORY: &str = "$$TRITON_MODEL_DIRECTORY";
/// Settings of Triton's backend that have no meaning here.
const WITHOUT_EFFECT: [&str; 4] =
    ["shm-default-byte-size", "shm-growth-byte-size", "shm-region-prefix-name", "thread-pool-size"];
/// What the server gives to every backend.
const OF_THE_SERVER: [&str; 4] =
    ["auto-complete-config", "backend-directory", "default-max-batch-size", "min-compute-capability"];

/// `--backend-config=python,…`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The interpreter of models that name no environment.
    interpreter: PathBuf,
    pub(crate) environments: Arc<Environments>,
    /// How long `finalize` may take.
    pub(crate) stop_timeout: Duration,
}

impl Settings {
    pub(crate) fn read(host: &Host, settings: &Value) -> Result<Self> {
        let mut read = Self {
            interpreter: "python3".into(),
            environments: Arc::default(),
            stop_timeout: Duration::from_secs(30),
        };
        for (name, value) in settings["cmdline"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            match name.as_str() {
                "interpreter" => read.interpreter = value.into(),
                "stub-timeout-seconds" => {
                    let wrong = || {
                        Error::invalid(format!(
                            "--backend-config=python,{name}={value}: a number of seconds is expected"
                        ))
                    };
                    read.stop_timeout = Duration::from_secs(value.parse().map_err(|_| wrong())?);
                }
                "environments-byte-size" => {
                    let wrong = || {
                        Error::invalid(format!(
                            "--backend-config=python,{name}={value}: a number of bytes is expected"
                        ))
                    };
                    read.environments = Arc::new(Environments::new(value.parse().map_err(|_| wrong())?));
                }
                name if OF_THE_SERVER.contains(&name) => {}
                name if WITHOUT_EFFECT.contains(&name) => {
                    host.warn(format!(
                        "--backend-config=python,{name} has no effect: memory is shared as needed"
                    ));
                }
                name => {
                    return Err(Error::invalid(format!(
                        "--backend-config=python,{name} is unknown: there are interpreter, stub-timeout-seconds and \
                         environments-byte-size"
                    )));
                }
            }
        }
        environments::sweep(&std::env::temp_dir());
        Ok(read)
    }

    /// Whether inputs on a GPU are given to the model there.
    ///
    /// # Errors
    /// The parameter is neither yes nor no.
    pub(crate) fn keeps_gpu(context: &ModelContext) -> Result<bool> {
        let given = context.config.parameters().find(|(name, _)| *name == FORCE_CPU);
        match given.map(|(_, value)| value.to_ascii_lowercase()).as_deref() {
            None | Some("yes") => Ok(false),
            Some("no") => Ok(true),
            Some(other) => Err(Error::invalid(format!("parameter '{FORCE_CPU}' is '{other}': yes or no"))),
        }
    }

    /// The interpreter that runs a model.
    pub(crate) fn interpreter(&self, context: &ModelContext) -> Result<Interpreter> {
        let parameter = |wanted| context.config.parameters().find(|(name, _)| *name == wanted);
        match parameter(ENVIRONMENT) {
            None => Ok(Interpreter { program: self.interpreter.clone(), environment: None }),
            Some((_, path)) => environment(path, &context.model_dir, &self.environments, |archive| {
                let name = &context.name;
                context.host.info(format!("model '{name}': unpacking the environment {}", archive.display()));
            }),
        }
    }
}

/// An interpreter, and the unpacked archive that it is in, which stays as long as this is held.
pub(crate) struct Interpreter {
    pub(crate) program: PathBuf,
    pub(crate) environment: Option<Arc<Environment>>,
}

/// The interpreter of an environment: a directory with `bin/python3`, an archive of one, or the interpreter itself.
fn environment(
    given: &str,
    model_dir: &Path,
    environments: &Environments,
    begins: impl FnOnce(&Path),
) -> Result<Interpreter> {
    let refuse = |why: &str| Error::invalid(format!("parameter '{ENVIRONMENT}' is '{given}', {why}"));
    let mut path = match given.strip_prefix(MODEL_DIRECTORY) {
        Some(rest) => {
            let rest = Path::new(rest.trim_start_matches('/'));
            if rest.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                return Err(refuse("which leads out of the model's directory"));
            }
            model_dir.join(rest)
        }
        None => PathBuf::from(given),
    };
    let environment = match Kind::of(&path).filter(|_| !path.is_dir()) {
        None => None,
        Some(Kind::Other) => {
            return Err(refuse(
                "an archive of a kind that is not unpacked here: make it a .tar.gz, or unpack it and name the directory",
            ));
        }
        Some(kind) => {
            let unpacked = environments.unpacked(&path, matches!(kind, Kind::TarGz), || begins(&path));
            let unpacked =
                unpacked.map_err(|error| refuse(&format!("an archive that cannot be unpacked: {error}")))?;
            path = unpacked.path();
            Some(unpacked)
        }
    };
    if path.is_file() {
        return Ok(Interpreter { program: path, environment });
    }
    let interpreters = ["bin/python3", "bin/python"].map(|program| path.join(program));
    let program = interpreters.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        refuse("which is neither an interpreter nor a directory or archive with bin/python3, as an environment has it")
    })?;
    Ok(Interpreter { program, environment })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn interpreter(given: &str, model_dir: &Path, environments: &Environments) -> Result<Interpreter> {
        environment(given, model_dir, environments, |_| {})
    }

    #[test]
    fn an_environment_is_a_directory_or_an_interpreter() {
        let (dir, none) = (tempfile::tempdir().unwrap(), Environments::default());
        std::fs::create_dir_all(dir.path().join("env/bin")).unwrap();
        std::fs::write(dir.path().join("env/bin/python3"), "").unwrap();
        let found = dir.path().join("env/bin/python3");
        for given in ["$$TRITON_MODEL_DIRECTORY/env", found.to_str().unwrap()] {
            assert_eq!(interpreter(given, dir.path(), &none).unwrap().program, found);
        }
        for (given, why) in [
            ("$$TRITON_MODEL_DIRECTORY/../env", "leads out"),
            ("$$TRITON_MODEL_DIRECTORY/env.tar.gz", "cannot be unpacked: No such file"),
            ("$$TRITON_MODEL_DIRECTORY/env.zip", "make it a .tar.gz"),
            ("/nowhere", "neither an interpreter nor"),
        ] {
            let error = interpreter(given, dir.path(), &none).err().unwrap();
            assert!(error.message.contains(why) && error.message.contains(given), "{error}");
        }
    }

    /// An archive with one file, whose name is not looked at.
    fn archive(path: &Path, name: &str, content: &[u8]) {
        let mut head = tar::Header::new_gnu();
        head.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        head.set_size(content.len() as u64);
        head.set_mode(0o755);
        head.set_cksum();
        let packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(packed);
        tar.append(&head, content).unwrap();
        std::fs::write(path, tar.into_inner().unwrap().finish().unwrap()).unwrap();
    }

    #[test]
    fn an_archive_is_unpacked_once_and_anew_when_it_has_changed() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let (given, path) = ("$$TRITON_MODEL_DIRECTORY/env.tar.gz", dir.path().join("env.tar.gz"));
        let of = |environments| interpreter(given, dir.path(), environments);
        archive(&path, "bin/python3", b"one");
        let first = of(&environments).unwrap();
        assert_eq!(std::fs::read(&first.program).unwrap(), b"one");
        assert_eq!(std::fs::metadata(&first.program).unwrap().permissions().mode() & 0o111, 0o111);
        let same = of(&environments).unwrap();
        assert_eq!(same.program, first.program);
        archive(&path, "bin/python3", b"another");
        let second = of(&environments).unwrap();
        let programs = [&first, &second].map(|interpreter| interpreter.program.clone());
        let read = programs.each_ref().map(|program| std::fs::read(program).unwrap());
        assert_eq!(read, [b"one".to_vec(), b"another".to_vec()]);
        let there = || programs.each_ref().map(|program| program.exists());
        drop(first);
        assert_eq!(there(), [true, true]);
        drop(same);
        assert_eq!(there(), [false, true]);
        drop((second, environments));
        assert_eq!(there(), [false, false]);
    }

    #[test]
    fn an_archive_that_is_none_or_writes_elsewhere_is_refused() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let path = dir.path().join("env.tgz");
        let why = || {
            let error = interpreter(path.to_str().unwrap(), dir.path(), &environments).err().unwrap();
            assert!(error.message.contains("env.tgz"), "{error}");
            error.message
        };
        std::fs::write(&path, "no archive").unwrap();
        assert!(why().contains("cannot be unpacked"));
        archive(&path, "../../trireme-evil", b"");
        assert!(why().contains("'../../trireme-evil' leads out of it"));
        archive(&path, "lib/nothing", b"");
        assert!(why().contains("nor a directory or archive with bin/python3"));
        archive(&path, "bin/python3", &[7; 100_000]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert!(why().contains("cannot be unpacked"));
    }
}
