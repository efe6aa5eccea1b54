use std::path::PathBuf;

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
