//! A checkpoint without a repository: `trireme serve DIR` and `trireme serve FILE.gguf`.
//!
//! The checkpoint is put into a repository of one model, which is a folder of links, and is then loaded like any other:
//! the backend completes what the configuration leaves open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

const CPU_BACKEND: &str = "cpu";
const GPU_BACKEND: &str = "tensorrtllm";

/// What NVIDIA's driver shows of itself.
const DRIVER_MARKS: [&str; 2] = ["/dev/nvidiactl", "/proc/driver/nvidia/version"];

/// What runs a checkpoint: the GPU where there are a driver and the backend for it, else the CPU. Then also what stands
/// in where that cannot run the checkpoint: an encoder, or a GPU that is too old.
pub(crate) fn checkpoint_backend(backends: &Path) -> (&'static str, Option<(&'static str, &'static str)>) {
    let driver = DRIVER_MARKS.iter().any(|mark| Path::new(mark).exists());
    if driver && backends.join(GPU_BACKEND).is_dir() {
        return (GPU_BACKEND, Some((GPU_BACKEND, CPU_BACKEND)));
    }
    (CPU_BACKEND, None)
}

/// What makes a directory a checkpoint.
const MARKS: &[&str] = &["config.json", "model.plan", "model.safetensors", "model.safetensors.index.json"];

/// A repository that holds one checkpoint; it goes with this value.
#[derive(Debug)]
pub(crate) struct CheckpointRepository {
    directory: TempDir,
    /// The name of its model.
    pub(crate) name: String,
}

impl CheckpointRepository {
    /// Makes the repository of the checkpoint at `path`, for the backend that runs it.
    ///
    /// # Errors
    /// The path is no checkpoint, and what it is instead.
    pub(crate) fn of(path: &Path, name: Option<&str>, backend: &str) -> anyhow::Result<Self> {
        let full = path.canonicalize().with_context(|| format!("'{}' cannot be read", path.display()))?;
        let what = kind(&full).with_context(|| format!("'{}' is no checkpoint", path.display()))?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => model_name(&full),
        };
        let fit = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(fit) {
            bail!(
                "'{name}' cannot be the name of a model: give one of letters, digits, '_', '-' and '.' with --model-name"
            );
        }
        let directory = TempDir::with_prefix("trireme-").context("no place for the model's configuration")?;
        let model = directory.path().join(&name);
        let make = || -> std::io::Result<()> {
            fs::create_dir(&model)?;
            fs::write(model.join("config.pbtxt"), format!("name: \"{name}\"\nbackend: \"{backend}\"\n"))?;
            match what {
                Kind::Directory => symlink(&full, model.join("1")),
                Kind::File(file) => {
                    fs::create_dir(model.join("1"))?;
                    symlink(&full, model.join("1").join(file))
                }
            }
        };
        make().with_context(|| format!("cannot write to '{}'", model.display()))?;
        Ok(Self { directory, name })
    }

    /// Gives the model a parameter; both are words of ours.
    pub(crate) fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let path = self.directory.path().join(&self.name).join("config.pbtxt");
        let line = format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n");
        let write = || fs::write(&path, fs::read_to_string(&path)? + &line);
        write().with_context(|| format!("cannot write to '{}'", path.display()))
    }

    /// Its directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

enum Kind {
    /// It is a version directory as it stands.
    Directory,
    /// A file, and the name under which backends look for it.
    File(&'static str),
}

fn kind(path: &Path) -> anyhow::Result<Kind> {
    let has_ending =
        |path: &Path, ending: &str| path.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending));
    if path.is_file() {
        for (ending, file) in [("gguf", "model.gguf"), ("plan", "model.plan")] {
            if has_ending(path, ending) {
                return Ok(Kind::File(file));
            }
        }
        bail!("a file must be a .gguf or a .plan; for safetensors give the directory that they are in");
    }
    if MARKS.iter().any(|mark| path.join(mark).is_file()) {
        return Ok(Kind::Directory);
    }
    let files: Vec<PathBuf> = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let ggufs: Vec<&PathBuf> = files.iter().filter(|file| has_ending(file, "gguf")).collect();
    match ggufs.as_slice() {
        [one] if one.file_name().is_some_and(|name| name == "model.gguf") => return Ok(Kind::Directory),
        [one] => bail!("it holds one GGUF file: give that, {}", one.display()),
        [] => {}
        several => bail!("it holds {} GGUF files: give one of them", several.len()),
    }
    if path.join("adapter_config.json").is_file() {
        bail!("it is an adapter (adapter_config.json), not a model: merge it into its model first");
    }
    if path.join("config.pbtxt").is_file() {
        bail!("it is a model of a repository: give --model-repository {}", parent(path).display());
    }
    if files.iter().any(|file| file.join("config.pbtxt").is_file()) {
        bail!("it is a model repository: give --model-repository {}", path.display());
    }
    bail!("it must hold a config.json with safetensors, or a model.plan, or be a .gguf file")
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The nearest name on the way up that says something.
fn model_name(path: &Path) -> String {
    let stem = if path.is_file() { path.file_stem() } else { path.file_name() };
    let stem = stem.and_then(|stem| stem.to_str()).unwrap_or_default();
    let says_nothing = stem == "model" || stem.bytes().all(|byte| byte.is_ascii_digit());
    match path.parent() {
        Some(above) if says_nothing && above.parent().is_some() => model_name(above),
        _ => stem.replace(' ', "-"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(files: &[&str]) -> TempDir {
        let place = TempDir::new().unwrap();
        for file in files {
            let file = place.path().join(file);
            fs::create_dir_all(parent(&file)).unwrap();
            fs::write(file, "").unwrap();
        }
        place
    }

    #[test]
    fn a_checkpoint_becomes_a_version_directory() {
        let place = place(&["Llama-1B/config.json", "x/Smol.Q4.gguf", "y/tiny/1/model.gguf"]);
        let of = |path: &str, name| CheckpointRepository::of(&place.path().join(path), name, "cpu").unwrap();
        for (path, name, file) in [
            ("Llama-1B", "Llama-1B", "config.json"),
            ("x/Smol.Q4.gguf", "Smol.Q4", "model.gguf"),
            ("y/tiny/1", "tiny", "model.gguf"),
            ("y/tiny/1/model.gguf", "tiny", "model.gguf"),
        ] {
            let repository = of(path, None);
            assert_eq!(repository.name, name, "{path}");
            assert!(repository.path().join(name).join("1").join(file).is_file(), "{path}");
        }
        assert_eq!(of("Llama-1B", Some("mine")).name, "mine");
    }

    #[test]
    fn what_is_no_checkpoint_is_told_what_it_is() {
        let place = place(&[
            "repo/m/config.pbtxt",
            "two/a.gguf",
            "two/b.gguf",
            "one/a.gguf",
            "a.bin",
            "empty/x",
            "lora/adapter_config.json",
        ]);
        for (path, why) in [
            ("nowhere", "cannot be read"),
            ("repo", "--model-repository"),
            ("repo/m", "it is a model of a repository"),
            ("two", "holds 2 GGUF files"),
            ("one", "give that"),
            ("a.bin", ".gguf"),
            ("empty", "config.json"),
            ("lora", "it is an adapter"),
        ] {
            let error = CheckpointRepository::of(&place.path().join(path), None, "cpu").unwrap_err();
            assert!(format!("{error:#}").contains(why), "{path}: {error:#}");
        }
        let error =
            CheckpointRepository::of(&place.path().join("one/a.gguf"), Some("a/b"), "cpu").unwrap_err();
        assert!(error.to_string().contains("--model-name"));
    }
}
