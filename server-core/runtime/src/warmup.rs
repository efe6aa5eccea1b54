//! The samples of `model_warmup`: run on every instance before it serves, past the scheduler and the statistics.

mod data;
mod sink;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use trireme_host::{Correlation, Input, Instance, Item, OutputSet, Request, Responder, Shape, Status};
use trireme_model_config::{CheckedConfig, TensorSpec};
use trireme_protocol::proto::ModelWarmup;
use trireme_protocol::{DataType, ShapeText};
use trireme_scheduling::{InstanceId, RequestId, Row};

use crate::batch_io::BatchIo;
use crate::error::ServeError;
use crate::instance::InstancePlan;
use crate::sequence::Sequences;
use crate::table::reshape;
use sink::WarmupSink;

/// The samples of a model version; the same data goes to all instances.
#[derive(Default)]
pub(crate) struct Warmup {
    samples: Vec<Sample>,
    names: Arc<[Box<str>]>,
    outputs: usize,
    /// Gives the requests their controls, if the model is one of sequences. Its states are the warm-up's alone.
    sequences: Option<Sequences>,
    batch_io: BatchIo,
}

#[derive(Debug)]
struct Sample {
    name: String,
    count: u32,
    /// Requests of an execution: of a model of sequences, one for each batch element.
    requests: u32,
    batch_size: u32,
    tensors: Vec<Tensor>,
}

#[derive(Debug)]
struct Tensor {
    index: u16,
    datatype: DataType,
    shape: Shape,
    data: Bytes,
}

impl Warmup {
    /// Makes the data of the samples. Those from files are in `<model_dir>/warmup`.
    ///
    /// # Errors
    /// INVALID_ARG: a sample that does not fit the model, or a file that does not fit the sample.
    pub(crate) fn read(config: &CheckedConfig, model_dir: &Path) -> Result<Self, ServeError> {
        let mut samples = Vec::new();
        for sample in config.warmup() {
            if sample.batch_size == 0 {
                tracing::warn!(
                    model = config.name,
                    "warm-up sample '{}' has batch_size 0 and is skipped",
                    sample.name
                );
                continue;
            }
            samples
                .push(Sample::read(sample, config, model_dir).map_err(|error| failed(&sample.name, &error))?);
        }
        let table = crate::load::tensor_table(config);
        let sequences = Sequences::new(config, model_dir)?;
        let batch_io = BatchIo::new(config)?;
        Ok(Self { samples, names: table.input_names, outputs: table.outputs.len(), sequences, batch_io })
    }

    /// Runs all samples on an instance; called on its thread.
    ///
    /// # Errors
    /// INVALID_ARG: what the backend answered.
    pub(crate) fn run(&self, instance: &mut Instance, plan: &InstancePlan) -> Result<(), ServeError> {
        for sample in &self.samples {
            tracing::debug!(instance = plan.name, "warm-up sample '{}'", sample.name);
            for _ in 0..sample.count {
                let refuse = |status: Status| failed(&sample.name, &status.message);
                let sinks: Vec<Arc<WarmupSink>> = (0..sample.requests).map(|_| Arc::default()).collect();
                let mut batch = self.batch(sample, &sinks, plan);
                let executed = instance.execute(&mut batch);
                drop(batch);
                let answered = sinks.iter().try_for_each(|sink| sink.wait());
                answered.and(executed).map_err(refuse)?;
            }
        }
        Ok(())
    }

    /// The requests of one execution. Each is a whole sequence of its own, where there are sequences.
    fn batch(&self, sample: &Sample, sinks: &[Arc<WarmupSink>], plan: &InstancePlan) -> Vec<Item> {
        let item = |sink: &Arc<WarmupSink>| {
            let responder = Responder::new(Arc::<WarmupSink>::clone(sink));
            Item { request: Box::new(self.request(sample)), responder }
        };
        let mut batch: Vec<Item> = sinks.iter().map(item).collect();
        if let Some(sequences) = &self.sequences {
            let row = |slot| Row { slot, request: Some(RequestId(slot.into())), start: true, end: true };
            let rows: Vec<Row> = (0..sample.requests).map(row).collect();
            sequences.prepare(InstanceId(plan.index), &rows, &mut batch);
        }
        self.batch_io.attach(&mut batch);
        batch
    }

    fn request(&self, sample: &Sample) -> Request {
        let input = |tensor: &Tensor| Input {
            index: tensor.index,
            dtype: trireme_host::abi::DType(tensor.datatype as u32),
            shape: tensor.shape.clone(),
            buffers: (!tensor.data.is_empty()).then(|| tensor.data.clone()).into_iter().collect(),
            device: None,
        };
        Request {
            id: String::new(),
            inputs: sample.tensors.iter().map(input).collect(),
            parameters: Vec::new(),
            wanted: OutputSet::all(self.outputs),
            batch_size: sample.batch_size,
            priority: 0,
            deadline_ns: 0,
            document: None,
            correlation: if self.sequences.is_some() { Correlation::Number(1) } else { Correlation::None },
            trace_parent: String::new(),
            names: Arc::clone(&self.names),
        }
    }
}

fn failed(sample: &str, why: &str) -> ServeError {
    ServeError::invalid(format!("failed to run warmup sample '{sample}': {why}"))
}

impl Sample {
    fn read(sample: &ModelWarmup, config: &CheckedConfig, model_dir: &Path) -> Result<Self, String> {
        let (requests, elements) =
            if config.sequence().is_some() { (sample.batch_size, 1) } else { (1, sample.batch_size) };
        let mut tensors = Vec::new();
        for (index, spec) in config.inputs.iter().enumerate() {
            let Some(given) = sample.inputs.get(&spec.name) else {
                if spec.optional {
                    continue;
                }
                return Err(format!("it has no data for input '{}'", spec.name));
            };
            let within = |error: String| format!("input '{}': {error}", spec.name);
            if DataType::from_proto(given.data_type) != Some(spec.data_type) {
                let wanted = spec.data_type.config_name();
                return Err(within(format!("its data_type is not {wanted}, which the model expects")));
            }
            let dims = backend_dims(spec, &given.dims).map_err(within)?;
            let element = data::element(given, spec.data_type, &dims, model_dir).map_err(within)?;
            // A shape is that of the whole batch.
            let elements = if spec.is_shape_tensor { 1 } else { elements };
            let batches = config.max_batch_size > 0 && !spec.is_shape_tensor;
            let batch = batches.then_some(i64::from(elements));
            tensors.push(Tensor {
                index: u16::try_from(index).unwrap_or(u16::MAX),
                datatype: spec.data_type,
                shape: batch.into_iter().chain(dims).collect(),
                data: data::repeat(element, elements).map_err(within)?,
            });
        }
        let (name, count) = (sample.name.clone(), sample.count.max(1));
        Ok(Self { name, count, requests, batch_size: elements, tensors })
    }
}

/// The dimensions that the backend sees. They may be given so, or as a client would give them.
fn backend_dims(spec: &TensorSpec, given: &[i64]) -> Result<Vec<i64>, String> {
    let fits = |dims: &[i64]| {
        dims.len() == given.len() && dims.iter().zip(given).all(|(want, got)| *want < 0 || want == got)
    };
    match &spec.reshape {
        Some(to) if fits(&spec.dims) => Ok(reshape(given, &spec.dims, to).into_vec()),
        Some(to) if fits(to) => Ok(given.to_vec()),
        None if fits(&spec.dims) => Ok(given.to_vec()),
        _ => Err(format!("its dims {} do not fit {}", ShapeText(given), ShapeText(&spec.dims))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use trireme_model_config::Draft;

    fn read(samples: &str) -> Result<Warmup, String> {
        let text = format!(
            "backend: \"b\" max_batch_size: 4\n\
             input [{{ name: \"X\" data_type: TYPE_FP32 dims: [ -1, 2 ] }},\n\
                    {{ name: \"R\" data_type: TYPE_INT8 dims: [ 1 ] reshape {{ shape: [ ] }} optional: true }}]\n\
             output {{ name: \"Y\" data_type: TYPE_FP32 dims: 1 }}\n{samples}"
        );
        let mut draft = Draft::parse(None, text).unwrap();
        draft.normalise("m", &[]);
        let (config, _) = draft.check_for("m", &crate::CAPABILITIES).unwrap();
        Warmup::read(&config, Path::new("/nowhere")).map_err(|error| error.message)
    }

    fn sample(batch_size: u32, inputs: &str) -> String {
        format!("model_warmup {{ name: \"s\" batch_size: {batch_size} {inputs} }}\n")
    }

    fn input(name: &str, rest: &str) -> String {
        format!("inputs {{ key: \"{name}\" value {{ {rest} zero_data: true }} }}")
    }

    #[test]
    fn samples_become_requests() {
        let x = input("X", "data_type: TYPE_FP32 dims: [ 3, 2 ]");
        let r = input("R", "data_type: TYPE_INT8 dims: [ 1 ]");
        let warmup = read(&(sample(2, &format!("{x} {r} count: 3")) + &sample(0, &x))).unwrap();
        assert_eq!(warmup.samples.len(), 1, "batch_size 0 is skipped");
        assert_eq!(warmup.samples[0].count, 3);
        let request = warmup.request(&warmup.samples[0]);
        assert_eq!((request.batch_size, request.inputs.len()), (2, 2));
        assert_eq!(request.inputs[0].shape.as_slice(), [2, 3, 2]);
        assert_eq!(request.inputs[0].buffers[0].len(), 2 * 3 * 2 * 4);
        assert_eq!(request.inputs[1].shape.as_slice(), [2], "as the backend sees it");
        assert_eq!(read(&sample(1, &x)).unwrap().samples[0].count, 1);
    }

    #[test]
    fn samples_that_do_not_fit_are_named() {
        let error = |inputs: &str| read(&sample(1, inputs)).err().unwrap();
        assert_eq!(error(""), "failed to run warmup sample 's': it has no data for input 'X'");
        assert!(error(&input("X", "data_type: TYPE_INT8 dims: [ 3, 2 ]")).contains("TYPE_FP32"));
        assert!(
            error(&input("X", "data_type: TYPE_FP32 dims: [ 3 ]"))
                .ends_with("its dims [3] do not fit [-1,2]")
        );
        let file =
            "inputs { key: \"X\" value { data_type: TYPE_FP32 dims: [ 1, 2 ] input_data_file: \"x\" } }";
        assert!(error(file).contains("/nowhere/warmup/x"), "{}", error(file));
    }
}
