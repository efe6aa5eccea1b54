use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::error::RepositoryError;
use crate::found::{FoundModel, FoundVersion, Lease};
use crate::version::{VersionName, is_plain_version};

/// All models of the repositories, by name. One that is in two of them is found once, with a problem.
///
/// `config_name` chooses `configs/<config_name>.pbtxt` where it exists.
///
/// # Errors
/// A repository that cannot be read, is empty, or is a model itself.
pub fn scan(repositories: &[PathBuf], config_name: Option<&str>) -> Result<Vec<FoundModel>, RepositoryError> {
    check_config_name(config_name)?;
    let mut models: BTreeMap<String, FoundModel> = BTreeMap::new();
    let mut read = BTreeSet::new();
    for repository in repositories {
        let directory = open(repository)?;
        // The same directory given twice is one repository.
        if !read.insert(directory.clone()) {
            continue;
        }
        for model in scan_one(repository, &directory, config_name)? {
            match models.get_mut(&model.name) {
                None => drop(models.insert(model.name.clone(), model)),
                Some(first) => {
                    first.problem = Some(IN_TWO.to_owned());
                    first.versions.clear();
                }
            }
        }
    }
    Ok(models.into_values().collect())
}

/// The field's text for a model that no request can be sent to, as nobody knows which one is meant.
pub const IN_TWO: &str = "model appears in two or more repositories";

pub(crate) fn check_config_name(config_name: Option<&str>) -> Result<(), RepositoryError> {
    match config_name.filter(|name| !is_component(name)) {
        Some(name) => Err(RepositoryError::ConfigName { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Whether a name stays where it is put.
fn is_component(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

pub(crate) fn open(repository: &Path) -> Result<PathBuf, RepositoryError> {
    if repository.as_os_str().is_empty() {
        return Err(RepositoryError::Empty);
    }
    let text = repository.to_string_lossy();
    if ["s3://", "gs://", "as://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(RepositoryError::Remote { path: repository.to_owned() });
    }
    repository
        .canonicalize()
        .map_err(|error| RepositoryError::Unreadable { path: repository.to_owned(), error })
}

/// `given` is the repository's path as it was given, for messages.
fn scan_one(
    given: &Path,
    repository: &Path,
    config_name: Option<&str>,
) -> Result<Vec<FoundModel>, RepositoryError> {
    let directories = directories(repository)
        .map_err(|error| RepositoryError::Unreadable { path: given.to_owned(), error })?;
    let path = given.to_owned();
    let parent = repository.parent().unwrap_or(repository);
    if is_model(repository, &directories) {
        return Err(RepositoryError::IsModel { path, parent: parent.to_owned() });
    }
    if directories.is_empty() {
        let name = repository.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_plain_version(name) && parent.join("config.pbtxt").is_file() {
            let repository = parent.parent().unwrap_or(parent).to_owned();
            return Err(RepositoryError::IsVersion { path, repository });
        }
        return Err(RepositoryError::NoModels { path });
    }
    let model = |(name, dir)| model(name, dir, repository, config_name);
    Ok(directories.into_iter().map(model).collect())
}

/// A model has a configuration, or nothing but versions; a model of a repository may be called `1`, but then it has a
/// configuration or versions of its own.
fn is_model(directory: &Path, directories: &[(String, PathBuf)]) -> bool {
    let is_version = |(name, dir): &(String, PathBuf)| {
        let holds_model = dir.join("config.pbtxt").is_file()
            || self::directories(dir).is_ok_and(|inner| inner.iter().any(|(name, _)| is_plain_version(name)));
        is_plain_version(name) && !holds_model
    };
    directory.join("config.pbtxt").is_file()
        || (!directories.is_empty() && directories.iter().all(is_version))
}

pub(crate) fn model(name: String, dir: PathBuf, repository: &Path, config_name: Option<&str>) -> FoundModel {
    let mut problem = None;
    if !is_model_name(&name) {
        problem =
            Some(format!("the directory name '{}' is not allowed as a model name", name.escape_debug()));
    }
    let (mut versions, mut warnings) = (Vec::new(), Vec::new());
    match directories(&dir) {
        Ok(directories) => versions = self::versions(directories, &mut warnings),
        Err(error) => problem = Some(format!("the directory '{}' cannot be read: {error}", dir.display())),
    }
    let named = config_name.map(|config_name| dir.join("configs").join(format!("{config_name}.pbtxt")));
    let config = named.into_iter().chain([dir.join("config.pbtxt")]).find(|path| path.is_file());
    let repository = repository.to_owned();
    FoundModel { name, dir, repository, config, versions, problem, warnings, lease: Lease::default() }
}

pub(crate) fn is_model_name(name: &str) -> bool {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | ' ' | ':' | '@' | '=');
    !name.contains("..") && !name.trim().is_empty() && name.chars().all(fine)
}

/// The versions among the directories of a model. Of two for one number, the one that is called just so counts.
fn versions(directories: Vec<(String, PathBuf)>, warnings: &mut Vec<String>) -> Vec<FoundVersion> {
    let mut versions: BTreeMap<i64, (String, PathBuf)> = BTreeMap::new();
    // Sorted by name, so that `3` comes before `3abc`.
    for (name, dir) in directories {
        match VersionName::of(&name) {
            VersionName::Version(number) => match versions.get(&number) {
                Some((first, _)) => warnings.push(format!(
                    "the directories '{first}' and '{name}' both mean version {number}: '{first}' is served"
                )),
                None => drop(versions.insert(number, (name, dir))),
            },
            VersionName::LeadingZero => warnings.push(format!(
                "the directory '{name}' begins with 0 and is passed over: call it '{}'",
                name.trim_start_matches('0')
            )),
            VersionName::Other => {}
        }
    }
    versions.into_iter().map(|(number, (_, dir))| FoundVersion { number, dir }).collect()
}

/// The directories in a directory, by name; hidden ones are left out. A link to a directory is one.
pub(crate) fn directories(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
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

    #[test]
    fn versions_that_are_passed_over_are_named() {
        let dir = repository(&["a/1", "a/3abc", "a/3", "a/02", "a/warmup", "b/0/1"]);
        let found = scan(&[dir.path().to_owned()], None).unwrap();
        let numbers: Vec<_> =
            found[0].versions.iter().map(|version| (version.number, version.dir.clone())).collect();
        let at = |name: &str| found[0].dir.join(name);
        assert_eq!(numbers, [(1, at("1")), (3, at("3"))]);
        assert_eq!(
            found[0].warnings,
            [
                "the directory '02' begins with 0 and is passed over: call it '2'",
                "the directories '3' and '3abc' both mean version 3: '3' is served",
            ]
        );
        assert!(found[1].versions.is_empty() && found[1].warnings.is_empty());
    }

    #[test]
    fn models_whose_names_begin_with_digits_are_models() {
        let dir = repository(&["3d_unet/1", "2stage/1"]);
        assert_eq!(scan(&[dir.path().to_owned()], None).unwrap().len(), 2);
        let dir = repository(&["1/1", "2/1"]);
        assert_eq!(scan(&[dir.path().to_owned()], None).unwrap().len(), 2);
        let dir = repository(&["1", "2"]);
        assert!(matches!(scan(&[dir.path().to_owned()], None), Err(RepositoryError::IsModel { .. })));
    }

    #[test]
    fn what_was_meant_is_said() {
        let dir = repository(&["a/1"]);
        std::fs::write(dir.path().join("a/config.pbtxt"), "").unwrap();
        let error = |path: &Path, name: Option<&str>| scan(&[path.to_owned()], name).unwrap_err().to_string();
        let version = error(&dir.path().join("a/1"), None);
        let parent = dir.path().canonicalize().unwrap();
        assert!(
            version.contains("a version of a model")
                && version.contains(&format!("give '{}'", parent.display()))
        );
        assert!(error(Path::new("s3://bucket/models"), None).contains("object store"));
        assert!(error(dir.path(), Some("../x")).contains("--model-config-name '../x' is not a name"));
        assert!(error(&dir.path().join("a/config.pbtxt"), None).contains("cannot be read: Not a directory"));
    }

    #[test]
    fn a_repository_given_twice_is_one() {
        let dir = repository(&["a/1"]);
        let found = scan(&[dir.path().to_owned(), dir.path().join(".")], None).unwrap();
        assert_eq!(found[0].problem, None);
    }

    #[test]
    fn links_to_models_are_models() {
        let (dir, elsewhere) = (repository(&["a/1"]), repository(&["b/4"]));
        std::os::unix::fs::symlink(elsewhere.path().join("b"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("c")).unwrap();
        let found = scan(&[dir.path().to_owned()], None).unwrap();
        let names: Vec<_> = found.iter().map(|model| (model.name.as_str(), model.versions.len())).collect();
        assert_eq!(names, [("a", 1), ("b", 1)]);
    }

    #[test]
    fn names_that_no_model_may_have() {
        for name in ["a..b", " ", "a\nb", "a\u{7f}", "a*b", "a\"b"] {
            assert!(!is_model_name(name), "{name:?}");
        }
        for name in ["a", "a.b", "modèle", "a-b_c", "x y"] {
            assert!(is_model_name(name), "{name:?}");
        }
    }
}
