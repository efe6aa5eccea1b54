use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use trireme_model_config::VersionPolicy;

/// A model in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// The name of its directory.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The repository that it is in.
    pub repository: PathBuf,
    /// Its configuration, if it has one.
    pub config: Option<PathBuf>,
    /// Its versions, ascending.
    pub versions: Vec<FoundVersion>,
    /// Why it cannot be served, as far as the directory tells.
    pub problem: Option<String>,
    /// What its author should know, although it is served.
    pub warnings: Vec<String>,
    /// Keeps its files where they are.
    pub lease: Lease,
}

/// Keeps the files of a model as long as somebody may read them; of a directory that is not ours, nothing. All are equal.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<dyn Any + Send + Sync>>);

impl Lease {
    /// The files stay as long as `keeper` does.
    pub fn new(keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Some(keeper))
    }
}

impl PartialEq for Lease {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Lease {}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Lease" } else { "NoLease" })
    }
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVersion {
    /// Its number.
    pub number: i64,
    /// Its directory.
    pub dir: PathBuf,
}

/// The versions of a model that are to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// They, ascending; at least one.
    pub versions: Vec<FoundVersion>,
    /// Versions that the policy names and that have no directory.
    pub missing: Vec<i64>,
}

/// A version policy that leaves nothing of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at least one version must be available under the version policy of model '{model}'")]
pub struct NoVersion {
    /// The model.
    pub model: String,
}

impl FoundModel {
    /// Whether it is the same model with the same configuration's file, wherever a copy of it lies.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let config = |model: &Self| {
            model.config.as_ref().map(|path| path.strip_prefix(&model.dir).unwrap_or(path).to_owned())
        };
        (&self.repository, &self.name, config(self)) == (&other.repository, &other.name, config(other))
    }

    /// The same files below another directory.
    #[must_use]
    pub fn moved_to(mut self, dir: PathBuf, lease: Lease) -> Self {
        let moved = |path: &PathBuf| {
            path.strip_prefix(&self.dir).map_or_else(|_| path.clone(), |rest| dir.join(rest))
        };
        self.config = self.config.as_ref().map(moved);
        let versions =
            self.versions.iter().map(|version| FoundVersion { dir: moved(&version.dir), ..*version });
        self.versions = versions.collect();
        Self { dir, lease, ..self }
    }

    /// The versions that the policy wants, of those that are there.
    ///
    /// # Errors
    /// There is none.
    pub fn select(&self, policy: &VersionPolicy) -> Result<Selection, NoVersion> {
        let available: Vec<i64> = self.versions.iter().map(|version| version.number).collect();
        let wanted = policy.select(&available);
        let versions: Vec<_> =
            self.versions.iter().filter(|version| wanted.contains(&version.number)).cloned().collect();
        if versions.is_empty() {
            return Err(NoVersion { model: self.name.clone() });
        }
        let missing = match policy {
            VersionPolicy::Specific(named) => {
                named.iter().filter(|version| !available.contains(version)).copied().collect()
            }
            VersionPolicy::Latest(_) | VersionPolicy::All => Vec::new(),
        };
        Ok(Selection { versions, missing })
    }

    /// The names of the files in the newest version's directory, which tell the backend where no configuration does.
    pub fn files(&self) -> Vec<String> {
        let Some(newest) = self.versions.last() else { return Vec::new() };
        let entries = std::fs::read_dir(&newest.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_selects() {
        let versions =
            [1, 2, 7].map(|number| FoundVersion { number, dir: PathBuf::from(number.to_string()) });
        let model = FoundModel {
            name: "m".to_owned(),
            dir: PathBuf::new(),
            repository: PathBuf::new(),
            config: None,
            versions: versions.into(),
            problem: None,
            warnings: Vec::new(),
            lease: Lease::default(),
        };
        let select = |policy: VersionPolicy| {
            let selection = model.select(&policy)?;
            let numbers: Vec<i64> = selection.versions.iter().map(|version| version.number).collect();
            Ok::<_, NoVersion>((numbers, selection.missing))
        };
        assert_eq!(select(VersionPolicy::Latest(1)), Ok((vec![7], vec![])));
        assert_eq!(select(VersionPolicy::All), Ok((vec![1, 2, 7], vec![])));
        assert_eq!(select(VersionPolicy::Specific(vec![9, 2])), Ok((vec![2], vec![9])));
        assert_eq!(
            select(VersionPolicy::Specific(vec![9])).map_err(|error| error.to_string()),
            Err("at least one version must be available under the version policy of model 'm'".to_owned())
        );
    }
}
