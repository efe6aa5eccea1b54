use std::ops::Deref;
use std::sync::Arc;

use crate::model::ModelVersion;
use crate::queue::Queue;

/// A version that the index offers, or offered when it was looked up.
///
/// While one is held the version takes requests, also after a reload has put another one in its place: what was looked
/// up can be used. The last one to go closes the queue, so that the replaced version ends.
pub struct Served {
    model: Arc<ModelVersion>,
    open: Arc<Open>,
}

/// Shared by all that are made of one queue: a version and what it became by a change in place.
struct Open(Arc<Queue>);

impl Served {
    pub(crate) fn new(model: Arc<ModelVersion>) -> Arc<Self> {
        let open = Arc::new(Open(Arc::clone(model.queue())));
        Arc::new(Self { model, open })
    }

    /// `model` in the place of this one, which shares its queue.
    pub(crate) fn with_model(&self, model: Arc<ModelVersion>) -> Arc<Self> {
        Arc::new(Self { model, open: Arc::clone(&self.open) })
    }
}

impl Deref for Served {
    type Target = Arc<ModelVersion>;

    fn deref(&self) -> &Arc<ModelVersion> {
        &self.model
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}
