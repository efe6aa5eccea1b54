//! Who uses a region keeps it registered.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use trireme_protocol::{SharedMemoryRef, TensorData};

use super::UNENDED;
use super::region::Region;
use super::waiting::elsewhere;
use crate::error::ServeError;
use crate::statistics::lock;

/// The table of what is registered, by name.
pub(super) type Regions = Arc<Mutex<BTreeMap<String, Entry>>>;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) region: Arc<Region>,
    /// Unregistered while requests used it: it goes with the last of them.
    pub(super) leaving: bool,
}

/// A region that a request uses, or a tensor of it that a model still reads: as long as this it stays registered.
#[derive(Debug)]
pub(crate) struct Used {
    /// Taken when it is dropped.
    pub(super) region: Option<Arc<Region>>,
    pub(super) regions: Regions,
}

impl Used {
    /// What [`Region::take`] says; a tensor on a GPU keeps the region registered.
    pub(crate) fn take(self: &Arc<Self>, part: &SharedMemoryRef) -> Result<TensorData, ServeError> {
        Region::take(self, part, Arc::clone(self))
    }
}

impl Deref for Used {
    type Target = Region;

    fn deref(&self) -> &Region {
        match &self.region {
            Some(region) => region,
            None => unreachable!("it is taken in `drop` only"),
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut regions = lock(&self.regions);
        // Under the lock, so that the last one sees that it is.
        self.region = None;
        let left = sweep(&mut regions);
        drop(regions);
        close(left);
    }
}

/// Closes regions that are in no table any more. A driver may take its time for those of CUDA, and the last to use one may be the
/// thread that serves connections, as when a call is cancelled.
fn close(left: Vec<Entry>) {
    let waits = left.iter().any(|entry| entry.region.is_cuda());
    if let Some(runtime) = waits.then(|| Handle::try_current().ok()).flatten() {
        runtime.spawn(elsewhere(UNENDED, || {
            drop(left);
            Ok(())
        }));
    }
}

/// Takes out what was unregistered and is no longer used, to be dropped when the table is not locked any more. The table
/// holds one reference; others are only made and dropped under its lock.
#[must_use]
pub(super) fn sweep(regions: &mut BTreeMap<String, Entry>) -> Vec<Entry> {
    let left = |_: &String, entry: &mut Entry| entry.leaving && Arc::strong_count(&entry.region) == 1;
    regions.extract_if(.., left).map(|(_, entry)| entry).collect()
}
