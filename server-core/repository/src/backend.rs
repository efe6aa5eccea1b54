use std::path::{Path, PathBuf};

/// Where the library of a backend may be.
#[derive(Debug, Clone, Copy)]
pub struct BackendPlaces<'a> {
    /// `<name>/libtrireme_<name>.so` below it.
    pub backend_directory: &'a Path,
    /// The directory of the model.
    pub model_dir: &'a Path,
    /// The directory of the version.
    pub version_dir: &'a Path,
    /// Whether a library in the model's directories may be loaded.
    pub allow_model_backends: bool,
}

/// No library of that name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BackendNotFound(String);

/// Whether a backend may have the name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The library that a configuration's `runtime` chooses among those of a backend: `x` or `libtrireme_x.so` is
/// `libtrireme_x.so` in the same places in which the backend's own library is looked for.
///
/// # Errors
/// There is none, with the same hints as of [`find_backend`].
pub fn find_runtime(
    name: &str,
    runtime: &str,
    places: &BackendPlaces<'_>,
) -> Result<PathBuf, BackendNotFound> {
    let library =
        runtime.strip_prefix("libtrireme_").and_then(|rest| rest.strip_suffix(".so")).unwrap_or(runtime);
    if !is_name(library) {
        let message =
            format!("'{}' is not a runtime: letters, digits, '_' and '-' only", runtime.escape_debug());
        return Err(BackendNotFound(message));
    }
    find_library(name, library, places)
}

/// The library of the backend `name`: in the version's directory, the model's, or the backend directory, in this order.
///
/// # Errors
/// There is none: where was looked, what there is, and what may have been meant.
pub fn find_backend(name: &str, places: &BackendPlaces<'_>) -> Result<PathBuf, BackendNotFound> {
    find_library(name, name, places)
}

fn find_library(name: &str, library: &str, places: &BackendPlaces<'_>) -> Result<PathBuf, BackendNotFound> {
    if !is_name(name) {
        let message =
            format!("'{}' is not a backend name: letters, digits, '_' and '-' only", name.escape_debug());
        return Err(BackendNotFound(message));
    }
    let file = format!("libtrireme_{library}.so");
    let looked = [places.version_dir.join(&file), places.model_dir.join(&file)];
    let own = looked.iter().find(|path| path.is_file()).cloned();
    if places.allow_model_backends
        && let Some(path) = own
    {
        return Ok(path);
    }
    let shared = places.backend_directory.join(name).join(&file);
    if shared.is_file() {
        return Ok(shared);
    }
    if let Some(path) = own {
        let message = format!(
            "the library '{}' of backend '{name}' lies in the model's directory, and such libraries are not loaded \
             unless --allow-model-backends is given",
            path.display()
        );
        return Err(BackendNotFound(message));
    }
    let known = known(places.backend_directory);
    let near = known.iter().map(|other| (strsim::damerau_levenshtein(name, other), other)).min();
    let hint = match near {
        Some((distance, other)) if distance <= name.len().max(other.len()) / 3 => {
            format!(", did you mean '{other}'?")
        }
        Some(_) => format!(", there are '{}'", known.join("', '")),
        None => ", and there is no other backend".to_owned(),
    };
    let missing = if places.allow_model_backends {
        let [version, model] = looked.map(|path| path.display().to_string());
        format!("none of '{version}', '{model}' and '{}' exists", shared.display())
    } else {
        format!("'{}' does not exist", shared.display())
    };
    Err(BackendNotFound(format!("unable to find backend '{name}': {missing}{hint}")))
}

fn known(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| directory.join(name).join(format!("libtrireme_{name}.so")).is_file())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_runtime_is_another_library_of_a_backend() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("engine")).unwrap();
        std::fs::write(dir.path().join("engine/libtrireme_engine.so"), "").unwrap();
        std::fs::write(dir.path().join("engine/libtrireme_next.so"), "").unwrap();
        let places = BackendPlaces {
            backend_directory: dir.path(),
            model_dir: dir.path(),
            version_dir: dir.path(),
            allow_model_backends: false,
        };
        let found = dir.path().join("engine/libtrireme_next.so");
        assert_eq!(find_runtime("engine", "next", &places).unwrap(), found);
        assert_eq!(find_runtime("engine", "libtrireme_next.so", &places).unwrap(), found);
        assert!(
            find_runtime("engine", "none", &places)
                .unwrap_err()
                .to_string()
                .contains("libtrireme_none.so' does not exist")
        );
        for bad in ["../engine/next", "/x", "", "libtrireme_../x.so"] {
            assert!(
                find_runtime("engine", bad, &places).unwrap_err().to_string().contains("is not a runtime"),
                "{bad}"
            );
        }
    }

    #[test]
    fn libraries_of_models_are_found_only_if_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let (backends, model) = (dir.path().join("backends"), dir.path().join("m"));
        std::fs::create_dir_all(backends.join("identity")).unwrap();
        std::fs::create_dir_all(model.join("1")).unwrap();
        std::fs::write(backends.join("identity/libtrireme_identity.so"), "").unwrap();
        std::fs::write(model.join("1/libtrireme_own.so"), "").unwrap();
        let version = model.join("1");
        let mut places = BackendPlaces {
            backend_directory: &backends,
            model_dir: &model,
            version_dir: &version,
            allow_model_backends: false,
        };
        assert!(find_backend("identity", &places).is_ok());
        assert!(find_backend("own", &places).unwrap_err().to_string().contains("--allow-model-backends"));
        assert!(
            find_backend("identty", &places).unwrap_err().to_string().contains("did you mean 'identity'?")
        );
        assert!(find_backend("../x", &places).unwrap_err().to_string().contains("not a backend name"));
        places.allow_model_backends = true;
        assert_eq!(find_backend("own", &places).unwrap(), version.join("libtrireme_own.so"));
    }
}
