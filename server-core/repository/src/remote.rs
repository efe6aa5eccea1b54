//! Repositories that are elsewhere.

use std::fmt::Debug;
use std::path::Path;

use crate::error::RepositoryError;
use crate::found::FoundModel;

/// Which models of a repository are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// These; of the others the name is enough.
    Only(&'a [String]),
}

/// A repository whose models are copied before they are read. In the list of repositories its copy's directory stands
/// for it.
pub trait Remote: Debug + Send + Sync {
    /// Where it is, as it was given.
    fn address(&self) -> &Path;

    /// Where the copies are seen: a directory for each model. What is in it is swapped whole.
    fn directory(&self) -> &Path;

    /// Brings the copies in step. A model that cannot be copied keeps the copy that it has.
    ///
    /// # Errors
    /// The repository cannot be listed.
    fn refresh(&self, which: Which<'_>) -> Result<(), RepositoryError>;

    /// What was found in [`Remote::directory`], tied to the copy that it was found in, with the reason why that is not
    /// what the repository holds, if there is one.
    fn pinned(&self, found: FoundModel) -> FoundModel;
}
