use std::ops::Deref;
use std::sync::Arc;

use crate::model::ModelVersion;

/// A version that the index offers, or offered when it was looked up.
///
/// While one is held the version takes requests, also after a reload has put another one in its place: what was looked
/// up can be used. The last one to go closes the queue, so that the replaced version ends.
pub struct Served(Arc<ModelVersion>);

impl Served {
    pub(crate) fn new(model: Arc<ModelVersion>) -> Arc<Self> {
        Arc::new(Self(model))
    }
}

impl Deref for Served {
    type Target = Arc<ModelVersion>;

    fn deref(&self) -> &Arc<ModelVersion> {
        &self.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.queue().close();
    }
}
