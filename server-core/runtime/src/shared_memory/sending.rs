//! Requests whose tensors may be in shared memory, on their way to their model.

use std::sync::Arc;

use trireme_protocol::{InferRequest, InferResponse, TensorData};

use super::{SharedMemory, elsewhere};
use crate::error::ServeError;
use crate::model::ModelVersion;
use crate::outputs::OutputPlan;
use crate::stream::ResponseStream;

/// Tensors of the system's shared memory of more bytes than this together are read on a thread for such work: it would hold
/// up other connections for about a tenth of a millisecond.
const INLINE_UP_TO: u64 = 1 << 20;
/// Said if the work on another thread panicked.
const UNREAD: &str = "shared memory could not be read";

/// What it takes to bring a request to its model.
enum Cost {
    Little,
    /// Much is copied.
    Copying,
    /// A driver is waited for.
    Waiting,
}

impl SharedMemory {
    /// Runs a request that has one answer. Tensors in shared memory are read and written where that holds up no connection.
    /// Dropping the future cancels the request.
    ///
    /// # Errors
    /// NOT_FOUND or INVALID_ARG for a part that no region has, what the memory says, and all that
    /// [`ModelVersion::infer`] answers.
    pub async fn infer(
        self: &Arc<Self>,
        model: &Arc<ModelVersion>,
        request: InferRequest,
    ) -> Result<InferResponse, ServeError> {
        model.check_has_one_answer()?;
        let (answers, outputs) = self.send(model, request).await?;
        let response = answers.only().await?;
        outputs.apply_async(model, response).await
    }

    /// Whether [`Self::send_at_once`] would hold up the thread that calls it.
    pub fn takes_time(&self, model: &ModelVersion, request: &InferRequest) -> bool {
        !matches!(self.cost(model, request), Cost::Little)
    }

    /// Puts what shared memory holds in the place of the inputs that name it, and queues the request.
    ///
    /// # Errors
    /// NOT_FOUND or INVALID_ARG for a part that no region has; what the memory says when it is read; all that
    /// [`ModelVersion::infer_stream`] says.
    pub fn send_at_once(
        &self,
        model: &Arc<ModelVersion>,
        mut request: InferRequest,
    ) -> Result<(ResponseStream, OutputPlan), ServeError> {
        let outputs = self.prepare(&mut request)?;
        Ok((model.infer_stream(request)?, outputs))
    }

    /// As [`Self::send_at_once`], on another thread if that takes long.
    ///
    /// # Errors
    /// As there.
    pub async fn send(
        self: &Arc<Self>,
        model: &Arc<ModelVersion>,
        request: InferRequest,
    ) -> Result<(ResponseStream, OutputPlan), ServeError> {
        let cost = self.cost(model, &request);
        if let Cost::Little = cost {
            return self.send_at_once(model, request);
        }
        let (memory, model) = (Arc::clone(self), Arc::clone(model));
        let work = move || memory.send_at_once(&model, request);
        match cost {
            Cost::Waiting => elsewhere(UNREAD, work).await,
            _ => {
                let ended = tokio::task::spawn_blocking(work).await;
                ended.unwrap_or_else(|_| Err(ServeError::internal(UNREAD)))
            }
        }
    }

    fn cost(&self, model: &ModelVersion, request: &InferRequest) -> Cost {
        let mut read = 0u64;
        for input in &request.inputs {
            let TensorData::SharedMemory(part) = &input.data else { continue };
            if !self.is_cuda(&part.region) {
                read = read.saturating_add(part.byte_size);
            } else if model.reads_at_once(&input.name) {
                return Cost::Waiting;
            }
        }
        if read > INLINE_UP_TO { Cost::Copying } else { Cost::Little }
    }
}
