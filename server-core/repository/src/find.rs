//! One model, without looking at all of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::RepositoryError;
use crate::found::FoundModel;
use crate::scan::{self, IN_TWO};

/// The model of that name; `None` if no repository has it. One that is in two of them has a problem.
///
/// # Errors
/// A repository that cannot be read.
pub fn find(
    repositories: &[PathBuf],
    name: &str,
    config_name: Option<&str>,
) -> Result<Option<FoundModel>, RepositoryError> {
    scan::check_config_name(config_name)?;
    let mut found: Option<FoundModel> = None;
    let mut read = BTreeSet::new();
    for repository in repositories {
        let directory = scan::open(repository)?;
        if !read.insert(directory.clone()) || !is_model_name(name) || !directory.join(name).is_dir() {
            continue;
        }
        match &mut found {
            None => found = Some(model_in(&directory, name, config_name)),
            Some(first) => {
                first.problem = Some(IN_TWO.to_owned());
                first.versions.clear();
            }
        }
    }
    Ok(found)
}

/// The names of all models, without a look into them.
///
/// # Errors
/// A repository that cannot be read.
pub fn names(repositories: &[PathBuf]) -> Result<BTreeSet<String>, RepositoryError> {
    let mut names = BTreeSet::new();
    for repository in repositories {
        let directories = scan::directories(&scan::open(repository)?)
            .map_err(|error| RepositoryError::Unreadable { path: repository.clone(), error })?;
        names.extend(directories.into_iter().map(|(name, _)| name));
    }
    Ok(names)
}

/// All models of repositories that were read before: one that is empty now has lost its models.
///
/// # Errors
/// A repository that cannot be read.
pub fn rescan(
    repositories: &[PathBuf],
    config_name: Option<&str>,
) -> Result<Vec<FoundModel>, RepositoryError> {
    let names = names(repositories)?.into_iter();
    names.filter_map(|name| find(repositories, &name, config_name).transpose()).collect()
}

/// The model that is the directory `name` of `repository`.
pub fn model_in(repository: &Path, name: &str, config_name: Option<&str>) -> FoundModel {
    scan::model(name.to_owned(), repository.join(name), repository, config_name)
}

/// Whether a model may have the name: a plain component of a path that is not hidden, without characters that break
/// log lines and addresses.
pub fn is_model_name(name: &str) -> bool {
    !name.starts_with('.') && scan::is_model_name(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn repository(models: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for model in models {
            std::fs::create_dir_all(dir.path().join(model)).unwrap();
        }
        dir
    }

    #[test]
    fn one_model_is_found_as_in_a_scan() {
        let (one, two) = (repository(&["a/1", "b/2"]), repository(&["b/1", "c/7"]));
        let repositories = [one.path().to_owned(), two.path().to_owned(), one.path().join(".")];
        for scanned in scan::scan(&repositories, None).unwrap() {
            assert_eq!(find(&repositories, &scanned.name, None).unwrap(), Some(scanned));
        }
        for name in ["d", "", ".", "..", "../a", "a/1", "a/../b"] {
            assert_eq!(find(&repositories, name, None).unwrap(), None, "{name:?}");
        }
        let all: Vec<_> = names(&repositories).unwrap().into_iter().collect();
        assert_eq!(all, ["a", "b", "c"]);
        assert!(find(&[one.path().join("nowhere")], "a", None).is_err());
    }

    #[test]
    fn a_named_configuration_is_preferred() {
        let dir = repository(&["a/1", "a/configs", "b/1"]);
        for file in ["a/config.pbtxt", "a/configs/x.pbtxt", "b/config.pbtxt"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let config = |name: &str, config_name: Option<&str>| {
            let found = find(&[dir.path().to_owned()], name, config_name).unwrap().unwrap();
            found.config.unwrap().strip_prefix(dir.path().canonicalize().unwrap()).unwrap().to_owned()
        };
        assert_eq!(config("a", Some("x")), Path::new("a/configs/x.pbtxt"));
        assert_eq!(config("a", None), Path::new("a/config.pbtxt"));
        assert_eq!(config("b", Some("x")), Path::new("b/config.pbtxt"));
        assert!(find(&[dir.path().to_owned()], "a", Some("../x")).is_err());
    }
}
