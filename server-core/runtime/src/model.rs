use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use trireme_host::{Correlation, DocumentCall, OutputSet, Request, Value};
use trireme_model_config::{CheckedConfig, Scheduling};
use trireme_protocol::proto::ModelMetadataResponse;
use trireme_protocol::proto::model_metadata_response::TensorMetadata;
use trireme_protocol::proto::model_metrics::metric_control::MetricOptions;
use trireme_protocol::{InferRequest, InferResponse, StatusCode, TensorMeta};
use trireme_repository::Lease;
use trireme_scheduling::{InstanceId, SequenceStep, ShapeKey};
use trireme_telemetry::clock::now_ns;
use trireme_telemetry::{FailureReason, ModelMetrics};

use crate::batch_io::BatchIo;
use crate::cache::{KeyOf, ResponseCache};
use crate::ensemble::{Ensemble, Header};
use crate::error::ServeError;
use crate::index::Index;
use crate::journey::Journey;
use crate::labels::Labels;
use crate::lineage::{Lineage, Outlet};
use crate::lookout::Wait;
use crate::ordering::Ordering;
use crate::overlay::Overlay;
use crate::queue::Queue;
use crate::sequence::{self, Sequences};
use crate::served::Served;
use crate::share::Limiter;
use crate::statistics::Statistics;
use crate::stream::ResponseStream;
use crate::table::{TensorSpec, TensorTable};
use crate::validate::{OutputChoice, admit};

/// Tells one load of a version from the next.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// The one histogram of the core that a configuration can set.
const FIRST_RESPONSE: &str = "nv_inference_first_response_histogram_ms";

/// The bounds that a configuration sets for its first responses, in milliseconds.
fn first_response_bounds(config: &CheckedConfig) -> Option<&[f64]> {
    let controls = config.proto.model_metrics.iter().flat_map(|metrics| &metrics.metric_control);
    let mut bounds = None;
    for control in controls {
        let family = control.metric_identifier.as_ref().map_or("", |identifier| identifier.family.as_str());
        match &control.metric_options {
            Some(MetricOptions::HistogramOptions(options)) if family == FIRST_RESPONSE => {
                bounds = Some(&options.buckets[..]);
            }
            _ => {
                tracing::warn!(model = config.name, "model_metrics: '{family}' is no metric that can be set")
            }
        }
    }
    bounds
}

/// Documents are batched with documents.
const DOCUMENTS: ShapeKey = ShapeKey(u128::MAX);

/// Inputs of so many bytes are hashed by the thread that brings them: a hundred microseconds.
const HASHED_AT_ONCE: usize = 128 << 10;

/// A request on its way to the queue.
struct Parcel {
    request: Box<Request>,
    header: Option<Header>,
    shape_key: ShapeKey,
    timeout_us: u64,
    step: Option<SequenceStep>,
}

/// A loaded version of a model. Holding one keeps it alive, also while the index already has another in its place.
pub struct ModelVersion {
    name: String,
    version: i64,
    config: CheckedConfig,
    config_json: String,
    versions: Vec<i64>,
    pub(crate) table: TensorTable,
    pub(crate) labels: Labels,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) metrics: Arc<ModelMetrics>,
    queue: Arc<Queue>,
    sequences: Option<Arc<Sequences>>,
    /// Absent unless the configuration asks for the order of arrival.
    ordering: Option<Arc<Ordering>>,
    hasher: RandomState,
    generation: u64,
    /// The last instance is gone and cannot be made again.
    lost: Arc<AtomicBool>,
    /// How long its good answers take.
    pub(crate) answer_wait: Arc<Wait>,
    input_metas: Vec<TensorMeta>,
    /// The steps, if it is an ensemble.
    pub(crate) ensemble: Option<Arc<Ensemble>>,
    /// Where other models are found. Weak: it holds this one.
    pub(crate) directory: Weak<ArcSwap<Index>>,
    /// How many unfinished requests an instance may hold, if the backend has a limit.
    pub(crate) max_in_flight: Option<NonZeroU32>,
    /// The tensors that speak of a whole batch.
    pub(crate) batch_io: Arc<BatchIo>,
    /// What its instances wait for, if the server limits rates.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// Whether an instance of it reads inputs in the memory of a GPU.
    pub(crate) reads_gpu: bool,
    /// Where its answers are kept, if they are.
    pub(crate) cache: Option<Arc<ResponseCache>>,
    /// The endpoints of OpenAI's API that it answers.
    pub(crate) endpoints: Vec<String>,
    /// When it was loaded, in seconds since 1970.
    pub(crate) loaded_s: u64,
    /// What a person who looks at the index should know of it, or empty.
    pub(crate) remark: String,
    /// The files of a load request; they are there as long as somebody may read them.
    pub(crate) files: Option<Arc<Overlay>>,
    /// Keeps the files of a copied repository.
    pub(crate) lease: Lease,
}

impl ModelVersion {
    pub(crate) fn new(
        version: i64,
        config: CheckedConfig,
        config_json: String,
        versions: Vec<i64>,
        metrics: Arc<ModelMetrics>,
        queue: Queue,
        sequences: Option<Sequences>,
    ) -> Self {
        let preserves = matches!(&config.scheduling, Scheduling::Dynamic(dynamic) if dynamic.preserve_ordering)
            || config.sequence().is_some_and(sequence::preserves_ordering);
        let table = crate::load::tensor_table(&config);
        let batches = table.batches();
        let meta = |spec: &TensorSpec| TensorMeta {
            name: spec.name.to_string(),
            datatype: spec.datatype,
            dims: spec.wire_dims(batches).into(),
            optional: spec.optional,
        };
        let input_metas = table.inputs.iter().map(meta).collect();
        metrics.set_first_response_bounds(first_response_bounds(&config));
        Self {
            name: config.name.clone(),
            version,
            config,
            config_json,
            versions,
            table,
            labels: Labels::default(),
            statistics: Arc::default(),
            metrics,
            queue: Arc::new(queue),
            sequences: sequences.map(Arc::new),
            ordering: preserves.then(Arc::default),
            hasher: RandomState::new(),
            generation: GENERATION.fetch_add(1, Relaxed),
            lost: Arc::default(),
            answer_wait: Arc::default(),
            input_metas,
            ensemble: None,
            directory: Weak::new(),
            max_in_flight: None,
            batch_io: Arc::default(),
            limiter: None,
            reads_gpu: false,
            cache: None,
            endpoints: Vec::new(),
            loaded_s: trireme_telemetry::clock::epoch_ms() / 1000,
            remark: String::new(),
            files: None,
            lease: Lease::default(),
        }
    }

    /// The same loaded version under a configuration that differs in its instances and its version policy only: queue,
    /// instances and counters are shared, so that nothing that waits or runs notices.
    pub(crate) fn revised(&self, config: CheckedConfig, config_json: String, versions: Vec<i64>) -> Self {
        Self {
            name: self.name.clone(),
            version: self.version,
            table: crate::load::tensor_table(&config),
            config,
            config_json,
            versions,
            labels: self.labels.clone(),
            statistics: Arc::clone(&self.statistics),
            metrics: Arc::clone(&self.metrics),
            queue: Arc::clone(&self.queue),
            sequences: self.sequences.clone(),
            ordering: self.ordering.clone(),
            hasher: self.hasher.clone(),
            generation: self.generation,
            lost: Arc::clone(&self.lost),
            answer_wait: Arc::clone(&self.answer_wait),
            input_metas: self.input_metas.clone(),
            ensemble: self.ensemble.clone(),
            directory: Weak::clone(&self.directory),
            max_in_flight: self.max_in_flight,
            batch_io: Arc::clone(&self.batch_io),
            limiter: self.limiter.clone(),
            reads_gpu: self.reads_gpu,
            cache: self.cache.clone(),
            endpoints: self.endpoints.clone(),
            loaded_s: self.loaded_s,
            remark: self.remark.clone(),
            files: self.files.clone(),
            lease: self.lease.clone(),
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This version.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The configuration that it runs with.
    pub fn config(&self) -> &CheckedConfig {
        &self.config
    }

    /// The configuration as JSON, with all defaults.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// Whether a request may have any number of answers.
    pub fn is_decoupled(&self) -> bool {
        self.config.decoupled
    }

    /// Whether other models compute what it answers.
    pub fn is_ensemble(&self) -> bool {
        self.ensemble.is_some()
    }

    /// The inputs as a client may send them.
    pub fn input_metas(&self) -> &[TensorMeta] {
        &self.input_metas
    }

    /// Whether the first dimension of every tensor is the batch.
    pub fn batches(&self) -> bool {
        self.table.batches()
    }

    /// The names of the classes of an output, by class; `None` if its configuration names no label file.
    pub fn labels(&self, output: &str) -> Option<&[String]> {
        self.labels.of(output)
    }

    /// Whether the server itself reads what inputs and outputs hold: to know a request again, or to keep a state.
    pub(crate) fn reads_values(&self) -> bool {
        self.cache.is_some() || self.sequences.is_some()
    }

    /// Whether an input in the memory of a GPU is copied while its request is validated; an ensemble's may be by the first of its
    /// steps.
    pub(crate) fn reads_at_once(&self, input: &str) -> bool {
        let spec = self.table.input(input).map(|index| &self.table.inputs[index]);
        self.is_ensemble() || self.reads_values() || spec.is_some_and(TensorSpec::is_looked_at)
    }

    /// Whether a tensor in the memory of a GPU is of use to it there.
    pub(crate) fn takes_devices(&self) -> bool {
        (self.reads_gpu || self.is_ensemble()) && !self.reads_values()
    }

    /// An instance is gone for good; without the last one, what waits is refused.
    pub(crate) fn instance_lost(&self, instance: InstanceId) {
        if self.queue.instance_lost(instance, &self.lost_error()) {
            self.lost.store(true, Relaxed);
        }
    }

    /// Whether no instance is left.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// What is said once no instance is left.
    pub(crate) fn lost_error(&self) -> ServeError {
        ServeError::unavailable(format!(
            "model '{}' version {} has lost all its instances and cannot make new ones: see the log, then load it again",
            self.name, self.version
        ))
    }

    /// Another model, as it is served now.
    pub(crate) fn find(&self, name: &str, version: Option<i64>) -> Result<Arc<Served>, ServeError> {
        let gone = || ServeError::unavailable("the server has ended");
        self.directory.upgrade().ok_or_else(gone)?.load().find(name, version).cloned()
    }

    /// How many instances it has, and how many unfinished requests they may hold together, if there is a limit.
    pub(crate) fn room(&self) -> (u32, Option<u32>) {
        let instances = self.queue.alive();
        (instances, self.max_in_flight.map(|each| each.get().saturating_mul(instances)))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn ordering(&self) -> Option<&Ordering> {
        self.ordering.as_deref()
    }

    /// Present if the model is one of sequences.
    pub(crate) fn sequences(&self) -> Option<&Sequences> {
        self.sequences.as_deref()
    }

    /// The versions that are served beside this one, and it.
    pub(crate) fn versions(&self) -> &[i64] {
        &self.versions
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What the metadata calls answer.
    pub fn metadata(&self) -> ModelMetadataResponse {
        let batches = self.table.batches();
        let describe = |specs: &[TensorSpec]| {
            let one = |spec: &TensorSpec| TensorMetadata {
                name: spec.name.to_string(),
                datatype: spec.datatype.wire_name().to_owned(),
                shape: spec.wire_dims(batches),
            };
            specs.iter().map(one).collect()
        };
        let platform = if self.config.platform.is_empty() {
            self.config.backend.clone()
        } else {
            self.config.platform.clone()
        };
        ModelMetadataResponse {
            name: self.name.clone(),
            versions: self.versions.iter().map(i64::to_string).collect(),
            platform,
            inputs: describe(&self.table.inputs),
            outputs: describe(&self.table.outputs),
        }
    }

    /// Validates and queues a request that has one answer, and waits for it. Dropping the future cancels the request.
    ///
    /// # Errors
    /// INVALID_ARG for a request that does not fit the model, UNSUPPORTED for a decoupled model, UNAVAILABLE if the
    /// model takes no more requests, and whatever the backend answers.
    pub async fn infer(self: &Arc<Self>, request: InferRequest) -> Result<InferResponse, ServeError> {
        self.check_has_one_answer()?;
        self.infer_stream(request)?.only().await
    }

    /// # Errors
    /// UNSUPPORTED for a decoupled model.
    pub(crate) fn check_has_one_answer(&self) -> Result<(), ServeError> {
        if self.is_decoupled() {
            return Err(ServeError::unsupported(
                "this call doesn't support models with decoupled transaction policy",
            ));
        }
        Ok(())
    }

    /// Validates and queues a request; its answers are read from the stream.
    ///
    /// # Errors
    /// INVALID_ARG for a request that does not fit the model, UNAVAILABLE if the model takes no more requests.
    pub fn infer_stream(self: &Arc<Self>, request: InferRequest) -> Result<ResponseStream, ServeError> {
        let journey = self.submit(request, Outlet::mailbox(), Lineage::default())?;
        Ok(ResponseStream::new(journey))
    }

    /// Validates a request and sends it on its way. Its answers go to `outlet`.
    ///
    /// # Errors
    /// As [`ModelVersion::infer_stream`]; then nothing comes to `outlet`.
    pub(crate) fn submit(
        self: &Arc<Self>,
        request: InferRequest,
        outlet: Outlet,
        lineage: Lineage,
    ) -> Result<Arc<Journey>, ServeError> {
        let step = self.sequences.is_some().then(|| sequence::step(&request.sequence));
        let header = self.ensemble.is_some().then(|| Header::of(&request));
        // As upstream counts: what does not fit the model was never a request of it.
        let mut admitted = admit(&self.name, &self.table, &self.hasher, self.reads_values(), request)?;
        if let Some(sequences) = &self.sequences {
            let checked = sequences.check(&admitted.request.correlation, &self.name);
            checked.inspect_err(|_| self.metrics.count_failure(FailureReason::Rejected))?;
        }
        admitted.request.deadline_ns = lineage.deadline_ns;
        admitted.request.trace_parent.clone_from(&lineage.trace_parent);
        let journey = Journey::new(
            Arc::clone(self),
            admitted.request.id.clone(),
            admitted.outputs,
            admitted.request.batch_size,
            admitted.empty_final,
            false,
            (outlet, lineage),
        );
        if admitted.timeout_us > 0 && admitted.request.deadline_ns == 0 {
            let timeout_ns = admitted.timeout_us.saturating_mul(1000);
            let own = journey.accepted_ns().saturating_add(timeout_ns);
            let inherited = Some(admitted.request.deadline_ns).filter(|deadline| *deadline > 0);
            admitted.request.deadline_ns = inherited.map_or(own, |deadline| deadline.min(own));
        }
        journey.set_deadline_ns(admitted.request.deadline_ns);
        journey.set_output_shapes(self.batch_io.output_shapes(&admitted.request));
        let parcel = Parcel {
            request: admitted.request,
            header,
            shape_key: admitted.shape_key,
            timeout_us: admitted.timeout_us,
            step,
        };
        match &self.cache {
            None => self.pass_on(&journey, parcel)?,
            Some(cache) if parcel.request.byte_size() <= HASHED_AT_ONCE => {
                if !self.look_up(cache, &journey, &parcel.request) {
                    self.pass_on(&journey, parcel)?;
                }
            }
            Some(cache) => self.look_up_apart(cache, &journey, parcel)?,
        }
        Ok(journey)
    }

    /// The endpoints of OpenAI's API that the model answers.
    pub fn openai_endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// When it was loaded, in seconds since 1970.
    pub fn loaded_s(&self) -> u64 {
        self.loaded_s
    }

    /// Queues a call of OpenAI's API; its answers are documents. `id` names the request for the backend.
    ///
    /// # Errors
    /// UNSUPPORTED if the model does not answer the endpoint, UNAVAILABLE if it takes no more requests.
    pub fn openai_stream(
        self: &Arc<Self>,
        call: DocumentCall,
        id: String,
        parameters: Vec<(String, Value)>,
    ) -> Result<ResponseStream, ServeError> {
        if !self.endpoints.iter().any(|endpoint| endpoint == call.endpoint) {
            let text = format!("the model '{}' does not answer '{}'", self.name, call.endpoint);
            return Err(ServeError::unsupported(text));
        }
        let request = Box::new(Request {
            id: id.clone(),
            inputs: SmallVec::new(),
            parameters,
            wanted: OutputSet::none(self.table.outputs.len()),
            batch_size: 1,
            priority: 0,
            deadline_ns: 0,
            correlation: Correlation::None,
            trace_parent: String::new(),
            document: Some(call),
            names: Arc::clone(&self.table.input_names),
        });
        let own = (Outlet::mailbox(), Lineage::default());
        let journey = Journey::new(Arc::clone(self), id, OutputChoice::default(), 1, false, true, own);
        self.queue.push(&journey, request, DOCUMENTS, 0, None)?;
        Ok(ResponseStream::new(journey))
    }

    /// To the steps, or into the queue.
    fn pass_on(&self, journey: &Arc<Journey>, parcel: Parcel) -> Result<(), ServeError> {
        match (&self.ensemble, parcel.header) {
            (Some(ensemble), Some(header)) => ensemble
                .start(journey, parcel.request, header)
                .inspect_err(|_| self.metrics.count_failure(FailureReason::Other)),
            _ => self.queue.push(journey, parcel.request, parcel.shape_key, parcel.timeout_us, parcel.step),
        }
    }

    /// Answers from the cache; false if it does not know the answer.
    fn look_up(&self, cache: &ResponseCache, journey: &Journey, request: &Request) -> bool {
        let start = now_ns();
        let of = KeyOf {
            model: &self.name,
            version: self.version,
            generation: self.generation,
            outputs: self.table.outputs.len(),
        };
        let key = of.key(request);
        let known = cache.get(&key);
        let took = now_ns().saturating_sub(start);
        match known {
            None => journey.missed(key, took),
            Some(response) => {
                journey.answer_from_cache(response, start, took);
                return true;
            }
        }
        false
    }

    /// As [`ModelVersion::look_up`], on a thread of its own: a front end's must not compute for so long.
    fn look_up_apart(
        self: &Arc<Self>,
        cache: &Arc<ResponseCache>,
        journey: &Arc<Journey>,
        parcel: Parcel,
    ) -> Result<(), ServeError> {
        let (model, cache, journey) = (Arc::clone(self), Arc::clone(cache), Arc::clone(journey));
        let work = move || {
            if journey.is_cancelled() {
                let error = ServeError::new(StatusCode::Cancelled, "the request was cancelled");
                journey.fail(error, FailureReason::Canceled);
            } else if !model.look_up(&cache, &journey, &parcel.request) {
                match model.pass_on(&journey, parcel) {
                    Err(error) => journey.refuse(error),
                    // A cancellation meanwhile has found nothing in the queue.
                    Ok(()) if journey.is_cancelled() => journey.cancel(),
                    Ok(()) => {}
                }
            }
        };
        let spawned = std::thread::Builder::new().name("cache".to_owned()).spawn(work);
        spawned
            .map(drop)
            .map_err(|error| ServeError::unavailable(format!("no thread for the response cache: {error}")))
    }

    /// Requests that no instance has taken yet.
    pub fn pending(&self) -> u64 {
        self.metrics.pending_request_count.load(Relaxed)
    }
}
