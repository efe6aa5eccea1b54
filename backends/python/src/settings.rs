//! What the command line and a model's configuration say about Python.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use trireme_sdk::{Error, Host, ModelContext, Result};

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
    /// How long `finalize` may take.
    pub(crate) stop_timeout: Duration,
}

impl Settings {
    pub(crate) fn read(host: &Host, settings: &Value) -> Result<Self> {
        let mut read = Self { interpreter: "python3".into(), stop_timeout: Duration::from_secs(30) };
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
                name if OF_THE_SERVER.contains(&name) => {}
                name if WITHOUT_EFFECT.contains(&name) => {
                    host.warn(format!(
                        "--backend-config=python,{name} has no effect: memory is shared as needed"
                    ));
                }
                name => {
                    return Err(Error::invalid(format!(
                        "--backend-config=python,{name} is unknown: there are interpreter and stub-timeout-seconds"
                    )));
                }
            }
        }
        Ok(read)
    }

    /// The interpreter that runs a model.
    pub(crate) fn interpreter(&self, context: &ModelContext) -> Result<PathBuf> {
        let parameter = |wanted| context.config.parameters().find(|(name, _)| *name == wanted);
        if parameter(FORCE_CPU).is_some_and(|(_, value)| value.eq_ignore_ascii_case("no")) {
            let name = &context.name;
            context.host.warn(format!(
                "model '{name}': {FORCE_CPU} has no effect: inputs are always in the memory of the host"
            ));
        }
        match parameter(ENVIRONMENT) {
            None => Ok(self.interpreter.clone()),
            Some((_, path)) => environment(path, &context.model_dir),
        }
    }
}

/// The interpreter of an environment: a directory with `bin/python3`, or the interpreter itself.
fn environment(given: &str, model_dir: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Error::invalid(format!("parameter '{ENVIRONMENT}' is '{given}', {why}"));
    let path = match given.strip_prefix(MODEL_DIRECTORY) {
        Some(rest) => {
            let rest = Path::new(rest.trim_start_matches('/'));
            if rest.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                return Err(refuse("which leads out of the model's directory"));
            }
            model_dir.join(rest)
        }
        None => PathBuf::from(given),
    };
    let name = path.to_string_lossy();
    if [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end)) {
        return Err(refuse(
            "which is an archive: archives are not unpacked here. Unpack it and name the directory, which may be below \
             $$TRITON_MODEL_DIRECTORY",
        ));
    }
    if path.is_file() {
        return Ok(path);
    }
    let interpreters = ["bin/python3", "bin/python"].map(|program| path.join(program));
    interpreters.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        refuse("which is neither an interpreter nor a directory with bin/python3, as an environment has it")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_environment_is_a_directory_or_an_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("env/bin")).unwrap();
        std::fs::write(dir.path().join("env/bin/python3"), "").unwrap();
        let found = dir.path().join("env/bin/python3");
        for given in ["$$TRITON_MODEL_DIRECTORY/env", found.to_str().unwrap()] {
            assert_eq!(environment(given, dir.path()).unwrap(), found);
        }
        for (given, why) in [
            ("$$TRITON_MODEL_DIRECTORY/../env", "leads out"),
            ("$$TRITON_MODEL_DIRECTORY/env.tar.gz", "Unpack it"),
            ("/nowhere", "neither an interpreter nor"),
        ] {
            let error = environment(given, dir.path()).unwrap_err();
            assert!(error.message.contains(why) && error.message.contains(given), "{error}");
        }
    }
}
