//! What a request wants done with its outputs before they are sent: written to shared memory, or turned into classes.

use std::sync::Arc;

use trireme_protocol::{InferRequest, InferResponse, OutputTensor, SharedMemoryRef, TensorData};

use crate::classify::classify;
use crate::error::ServeError;
use crate::model::ModelVersion;
use crate::shared_memory::{SharedMemory, Used, elsewhere};

/// The wishes of one request, and the regions that its inputs came from: they stay registered as long as this.
#[derive(Default, Clone)]
pub struct OutputPlan(Option<Arc<Plan>>);

struct Plan {
    wishes: Vec<(String, Wish)>,
    #[expect(dead_code, reason = "it is kept")]
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
    pub(crate) fn prepare(&self, request: &mut InferRequest) -> Result<OutputPlan, ServeError> {
        let (mut wishes, mut held) = (Vec::new(), Vec::new());
        for input in &mut request.inputs {
            if let TensorData::SharedMemory(part) = &input.data {
                let region = self.find(part)?;
                input.data = region.take(part)?;
                held.push(region);
            }
        }
        for output in &mut request.outputs {
            let wish = match (output.shared_memory.take(), output.classification.take()) {
                (Some(part), _) => Wish::Write(self.find(&part)?, part),
                (None, Some(classes)) => Wish::Classes(classes),
                (None, None) => continue,
            };
            wishes.push((output.name.clone(), wish));
        }
        let any = !wishes.is_empty() || !held.is_empty();
        Ok(OutputPlan(any.then(|| Arc::new(Plan { wishes, held }))))
    }
}

impl OutputPlan {
    /// Whether [`Self::apply`] would hold up the thread that calls it: a copy to the memory of a GPU is waited for.
    pub fn takes_time(&self) -> bool {
        let waits = |(_, wish): &(String, Wish)| matches!(wish, Wish::Write(region, _) if region.is_cuda());
        self.0.as_ref().is_some_and(|plan| plan.wishes.iter().any(waits))
    }

    /// Does to an answer what its request wanted.
    ///
    /// # Errors
    /// INVALID_ARG for an output that has no classes, INTERNAL for a part that is too short for its tensor.
    pub fn apply(&self, model: &ModelVersion, response: &mut InferResponse) -> Result<(), ServeError> {
        self.0.as_ref().map_or(Ok(()), |plan| plan.apply(model, response))
    }

    /// As [`OutputPlan::apply`], on another thread if that takes long.
    ///
    /// # Errors
    /// As there.
    pub async fn apply_async(
        &self,
        model: &Arc<ModelVersion>,
        mut response: InferResponse,
    ) -> Result<InferResponse, ServeError> {
        match &self.0 {
            Some(plan) if self.takes_time() => {
                let (plan, model) = (Arc::clone(plan), Arc::clone(model));
                let work = move || plan.apply(&model, &mut response).map(|()| response);
                elsewhere("shared memory could not be written", work).await
            }
            _ => self.apply(model, &mut response).map(|()| response),
        }
    }
}

impl Plan {
    fn apply(&self, model: &ModelVersion, response: &mut InferResponse) -> Result<(), ServeError> {
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
