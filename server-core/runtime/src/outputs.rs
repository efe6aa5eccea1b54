//! What a request wants done with its outputs before they are sent: written to shared memory, or turned into classes.

use std::sync::Arc;

use trireme_protocol::{InferRequest, InferResponse, OutputTensor, SharedMemoryRef, TensorData};

use crate::classify::classify;
use crate::error::ServeError;
use crate::model::ModelVersion;
use crate::shared_memory::{SharedMemory, Used};

/// Tensors of shared memory of more bytes than this together are read on a thread for such work: it would hold up other
/// connections for about a tenth of a millisecond.
const INLINE_UP_TO: u64 = 1 << 20;

/// The wishes of one request, and the regions that its inputs came from: they stay registered as long as this.
#[derive(Default)]
pub struct OutputPlan {
    wishes: Vec<(String, Wish)>,
    held: Vec<Arc<Used>>,
}

enum Wish {
    Classes(u32),
    Write(Arc<Used>, SharedMemoryRef),
}

impl SharedMemory {
    /// Puts the bytes of shared memory in the place of the inputs that name it, and takes the wishes for the outputs.
    ///
    /// # Errors
    /// NOT_FOUND or INVALID_ARG for a part that no region has; what the memory says when it is read.
    pub fn prepare(&self, request: &mut InferRequest) -> Result<OutputPlan, ServeError> {
        let mut plan = OutputPlan::default();
        for input in &mut request.inputs {
            if let TensorData::SharedMemory(part) = &input.data {
                let region = self.find(part)?;
                input.data = region.take(part)?;
                plan.held.push(region);
            }
        }
        for output in &mut request.outputs {
            let wish = match (output.shared_memory.take(), output.classification.take()) {
                (Some(part), _) => Wish::Write(self.find(&part)?, part),
                (None, Some(classes)) => Wish::Classes(classes),
                (None, None) => continue,
            };
            plan.wishes.push((output.name.clone(), wish));
        }
        Ok(plan)
    }

    /// As [`SharedMemory::prepare`], on another thread if that takes long.
    ///
    /// # Errors
    /// As there.
    pub async fn prepare_async(
        self: &Arc<Self>,
        mut request: InferRequest,
    ) -> Result<(InferRequest, OutputPlan), ServeError> {
        let shared = request.inputs.iter().map(|input| match &input.data {
            TensorData::SharedMemory(part) => part.byte_size,
            TensorData::Bytes(_) | TensorData::Held(_) => 0,
        });
        if shared.fold(0, u64::saturating_add) <= INLINE_UP_TO {
            let plan = self.prepare(&mut request)?;
            return Ok((request, plan));
        }
        let memory = Arc::clone(self);
        let work = move || memory.prepare(&mut request).map(|plan| (request, plan));
        let ended = tokio::task::spawn_blocking(work).await;
        ended.unwrap_or_else(|_| Err(ServeError::internal("shared memory could not be read")))
    }
}

impl OutputPlan {
    /// Does to an answer what its request wanted.
    ///
    /// # Errors
    /// INVALID_ARG for an output that has no classes, INTERNAL for a part that is too short for its tensor.
    pub fn apply(&self, model: &ModelVersion, response: &mut InferResponse) -> Result<(), ServeError> {
        for (name, wish) in &self.wishes {
            let Some(output) = response.outputs.iter_mut().find(|output| output.name == *name) else {
                continue;
            };
            match wish {
                Wish::Classes(classes) => {
                    let spec = model.table.output(name).map(|at| &model.table.outputs[at]);
                    let batches = spec.is_none_or(|spec| spec.has_batch(model.batches()));
                    classify(output, *classes, batches, model.labels(name))?;
                }
                Wish::Write(region, part) => write(output, region, part)?,
            }
        }
        Ok(())
    }

    /// As [`OutputPlan::apply`], on another thread if memory of a GPU is written: the copy is waited for.
    ///
    /// # Errors
    /// As there.
    pub async fn apply_async(
        self,
        model: &Arc<ModelVersion>,
        mut response: InferResponse,
    ) -> Result<InferResponse, ServeError> {
        let waits = |(_, wish): &(String, Wish)| matches!(wish, Wish::Write(region, _) if region.is_cuda());
        if !self.wishes.iter().any(waits) {
            return self.apply(model, &mut response).map(|()| response);
        }
        let model = Arc::clone(model);
        let work = move || self.apply(&model, &mut response).map(|()| response);
        let ended = tokio::task::spawn_blocking(work).await;
        ended.unwrap_or_else(|_| Err(ServeError::internal("shared memory could not be written")))
    }
}

fn write(output: &mut OutputTensor, region: &Used, part: &SharedMemoryRef) -> Result<(), ServeError> {
    let length = output.data.len() as u64;
    if length > part.byte_size {
        return Err(ServeError::internal(format!(
            "shared memory size specified with the request for output '{}' ({} bytes) should be at least {length} \
             bytes to hold the results",
            output.name, part.byte_size
        )));
    }
    region.write(part.offset, &output.data)?;
    output.data.clear();
    output.shared_memory = Some(SharedMemoryRef { byte_size: length, ..part.clone() });
    Ok(())
}
