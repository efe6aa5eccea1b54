use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directories of a model that are never versions.
const RESERVED: [&str; 3] = ["warmup", "initial_state", "configs"];

/// A model in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// The name of its directory.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its configuration, if it has one.
    pub config: Option<PathBuf>,
    /// Its versions, ascending.
    pub versions: Vec<FoundVersion>,
    /// Why it cannot be served, as far as the directory tells.
    pub problem: Option<String>,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVersion {
    /// Its number.
    pub number: i64,
    /// Its directory.
    pub dir: PathBuf,
}

/// A repository that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// It is not there, or no directory.
    #[error(
        "model repository '{path}' cannot be read: {error}; give an existing directory to --model-repository"
    )]
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It was given as an empty text.
    #[error("the model repository is an empty path; give an existing directory to --model-repository")]
    Empty,
    /// It holds nothing.
    #[error(
        "model repository '{path}' holds no models: each model is a directory with config.pbtxt and versions 1, 2, …"
    )]
    NoModels {
        /// As it was given.
        path: PathBuf,
    },
    /// It is a model.
    #[error(
        "'{path}' looks like a model, not like a repository: give its parent directory '{parent}' to --model-repository"
    )]
    IsModel {
        /// As it was given.
        path: PathBuf,
        /// What was meant.
        parent: PathBuf,
    },
}

/// All models of the repositories, by name. One that is in two of them is found once, with a problem.
///
/// `config_name` chooses `configs/<config_name>.pbtxt` where it exists.
///
/// # Errors
/// A repository that cannot be read, is empty, or is a model itself.
pub fn scan(repositories: &[PathBuf], config_name: Option<&str>) -> Result<Vec<FoundModel>, RepositoryError> {
    let mut models: BTreeMap<String, FoundModel> = BTreeMap::new();
    for repository in repositories {
        let found = scan_one(repository, config_name)?;
        for model in found {
            match models.get_mut(&model.name) {
                None => drop(models.insert(model.name.clone(), model)),
                Some(first) => {
                    first.problem = Some("model appears in two or more repositories".to_owned());
                    first.versions.clear();
                }
            }
        }
    }
    Ok(models.into_values().collect())
}

fn scan_one(repository: &Path, config_name: Option<&str>) -> Result<Vec<FoundModel>, RepositoryError> {
    if repository.as_os_str().is_empty() {
        return Err(RepositoryError::Empty);
    }
    let unreadable = |error| RepositoryError::Unreadable { path: repository.to_owned(), error };
    let absolute = repository.canonicalize().map_err(unreadable)?;
    let directories = directories(&absolute).map_err(unreadable)?;
    let is_model = absolute.join("config.pbtxt").is_file()
        || (!directories.is_empty() && directories.iter().all(|(name, _)| version_number(name).is_some()));
    if is_model {
        let parent = absolute.parent().unwrap_or(&absolute).to_owned();
        return Err(RepositoryError::IsModel { path: repository.to_owned(), parent });
    }
    if directories.is_empty() {
        return Err(RepositoryError::NoModels { path: repository.to_owned() });
    }
    Ok(directories.into_iter().map(|(name, dir)| model(name, dir, config_name)).collect())
}

fn model(name: String, dir: PathBuf, config_name: Option<&str>) -> FoundModel {
    let mut problem = None;
    let fine =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | ' ' | ':' | '@' | '=');
    if name.contains("..") || !name.chars().all(|c| fine(c) || c.is_alphanumeric()) || name.trim().is_empty()
    {
        problem =
            Some(format!("the directory name '{}' is not allowed as a model name", name.escape_debug()));
    }
    let mut versions = Vec::new();
    match directories(&dir) {
        Ok(directories) => {
            for (version, path) in directories {
                if let Some(number) = version_number(&version) {
                    versions.push(FoundVersion { number, dir: path });
                }
            }
        }
        Err(error) => problem = Some(format!("the directory '{}' cannot be read: {error}", dir.display())),
    }
    versions.sort_by_key(|version| version.number);
    versions.dedup_by_key(|version| version.number);
    let named = config_name.map(|config_name| dir.join("configs").join(format!("{config_name}.pbtxt")));
    let config = named.into_iter().chain([dir.join("config.pbtxt")]).find(|path| path.is_file());
    FoundModel { name, dir, config, versions, problem }
}

/// The directories in a directory, by name; hidden ones are left out.
fn directories(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() && !name.starts_with('.') {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// The version that a directory stands for. As the field reads it: digits at the front count, "3abc" is 3; a name with a
/// leading zero, and one that is not above 0, is no version.
fn version_number(name: &str) -> Option<i64> {
    if RESERVED.contains(&name) || (name.starts_with('0') && name.len() > 1) {
        return None;
    }
    let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    name[..digits].parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn version_names() {
        let read: Vec<_> = ["1", "10", "3abc", "01", "0", "abc", "-1", "warmup"].map(version_number).into();
        assert_eq!(read, [Some(1), Some(10), Some(3), None, None, None, None, None]);
    }

    fn repository(models: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for model in models {
            std::fs::create_dir_all(dir.path().join(model)).unwrap();
        }
        dir
    }

    #[test]
    fn models_and_versions_are_found() {
        let dir = repository(&["a/1", "a/2", "a/configs", "b/1", ".hidden/1", "c"]);
        std::fs::write(dir.path().join("a/config.pbtxt"), "").unwrap();
        std::fs::write(dir.path().join("a/configs/x.pbtxt"), "").unwrap();
        let found = scan(&[dir.path().to_owned()], Some("x")).unwrap();
        let names: Vec<_> = found.iter().map(|model| (model.name.as_str(), model.versions.len())).collect();
        assert_eq!(names, [("a", 2), ("b", 1), ("c", 0)]);
        assert!(found[0].config.as_ref().unwrap().ends_with("configs/x.pbtxt"));
        assert_eq!(found[1].config, None);
    }

    #[test]
    fn a_model_in_two_repositories_is_served_by_neither() {
        let (one, two) = (repository(&["a/1"]), repository(&["a/1", "b/1"]));
        let found = scan(&[one.path().to_owned(), two.path().to_owned()], None).unwrap();
        assert_eq!(found[0].problem.as_deref(), Some("model appears in two or more repositories"));
        assert_eq!(found[1].problem, None);
    }

    #[test]
    fn what_is_no_repository_is_told_apart() {
        let dir = repository(&["a/1", "empty"]);
        let error = |path: PathBuf| scan(&[path], None).unwrap_err().to_string();
        assert!(error(dir.path().join("nowhere")).contains("cannot be read"));
        assert!(error(dir.path().join("empty")).contains("holds no models"));
        let model = error(dir.path().join("a"));
        assert!(model.contains("give its parent") && model.contains(dir.path().to_str().unwrap()));
        assert!(error(PathBuf::new()).contains("empty path"));
    }
}
