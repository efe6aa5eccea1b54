use trireme_protocol::proto;

/// Which versions are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(u32),
    /// All.
    All,
    /// These.
    Specific(Vec<i64>),
}

impl VersionPolicy {
    /// The policy of a configuration; without one it is the newest version.
    pub fn of(config: &proto::ModelConfig) -> Self {
        use proto::model_version_policy::PolicyChoice;
        match config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
            None => Self::Latest(1),
            Some(PolicyChoice::Latest(latest)) => Self::Latest(latest.num_versions.max(1)),
            Some(PolicyChoice::All(_)) => Self::All,
            Some(PolicyChoice::Specific(specific)) => Self::Specific(specific.versions.clone()),
        }
    }

    /// Those of `available` (in any order) that are to be served, ascending.
    pub fn select(&self, available: &[i64]) -> Vec<i64> {
        let mut sorted = available.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        match self {
            Self::All => sorted,
            Self::Latest(count) => sorted.split_off(sorted.len().saturating_sub(*count as usize)),
            Self::Specific(wanted) => sorted.into_iter().filter(|version| wanted.contains(version)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::VersionPolicy;

    #[test]
    fn policies_select() {
        let available = [3, 1, 10, 2];
        assert_eq!(VersionPolicy::Latest(1).select(&available), [10]);
        assert_eq!(VersionPolicy::Latest(3).select(&available), [2, 3, 10]);
        assert_eq!(VersionPolicy::Latest(9).select(&available), [1, 2, 3, 10]);
        assert_eq!(VersionPolicy::All.select(&available), [1, 2, 3, 10]);
        assert_eq!(VersionPolicy::Specific(vec![10, 4, 1]).select(&available), [1, 10]);
        assert_eq!(VersionPolicy::Specific(vec![4]).select(&available), [0_i64; 0]);
        assert_eq!(VersionPolicy::Latest(1).select(&[]), [0_i64; 0]);
    }
}
