//! Where the models are: directories as they are, object stores as a copy.

use std::path::PathBuf;
use std::sync::Arc;

use trireme_repository::Remote;

type Opened = (Vec<PathBuf>, Vec<Arc<dyn Remote>>);

/// The directories of the repositories, and those of them that are copies. One that is given twice is copied once.
///
/// # Errors
/// An address that cannot be read, or credentials that are not there.
#[cfg(feature = "s3")]
pub(crate) fn open(given: &[PathBuf]) -> anyhow::Result<Opened> {
    let (mut directories, mut remotes): Opened = Default::default();
    for path in given {
        match path.to_str().filter(|_| trireme_objects::is_address(path)) {
            None => directories.push(path.clone()),
            Some(_) if remotes.iter().any(|remote| remote.address() == path) => {}
            Some(address) => {
                let remote = trireme_objects::Mirror::open(address)?;
                directories.push(remote.directory().to_owned());
                remotes.push(Arc::new(remote));
            }
        }
    }
    Ok((directories, remotes))
}

/// This build knows directories only; others are refused where they are read.
#[cfg(not(feature = "s3"))]
pub(crate) fn open(given: &[PathBuf]) -> anyhow::Result<Opened> {
    Ok((given.to_vec(), Vec::new()))
}
