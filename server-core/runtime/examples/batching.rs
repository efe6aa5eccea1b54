//! What the scheduler costs and what batching gains, in process and without a network.
//!
//! `batching BACKENDS SECONDS`: the folder of the built backends, and how long each cell runs. Prints tables in Markdown;
//! the exit status is 1 if the added latency misses its bar. `cargo xtask bench batching` builds and runs it.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;
use trireme_host::abi::{DType, InstanceKind, LogLevel, Stage};
use trireme_host::{
    Backend, Correlation, Input, InstanceArgs, Item, Library, LoadOptions, ModelArgs, OutputSet, Request,
    Responder, Response, ResponseSink, Verdict,
};
use trireme_protocol::{DataType, InferRequest, InputTensor, Limits, TensorData};
use trireme_runtime::{ControlMode, Core, CoreOptions, Served};
use trireme_scheduling::StartAfter;
use trireme_telemetry::Registry;
use trireme_telemetry::clock::now_ns;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The added latency that is promised, at the median.
const BAR_NS: u64 = 15_000;
/// What a batch costs, however large it is.
const BATCH_MS: u32 = 2;
/// Clients that each wait for an answer before they ask again.
const CLIENTS: usize = 48;
const BATCH_SIZES: [u32; 4] = [1, 8, 32, 64];
const DELAYS_MS: [u32; 3] = [0, 1, 100];
const INSTANCES: [u32; 3] = [1, 4, 16];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backends, seconds] = arguments.as_slice() else {
        eprintln!("usage: batching BACKENDS SECONDS");
        return ExitCode::from(2);
    };
    let outcome = seconds.parse().map_err(Into::into).and_then(|seconds| run(Path::new(backends), seconds));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(backends: &Path, seconds: f64) -> Outcome<bool> {
    let repository = tempfile::tempdir()?;
    write_models(repository.path())?;
    let core = start(repository.path(), backends)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let span = (seconds * 1e9) as u64;

    println!("### Added latency\n\n| | p50 µs | p99 µs | calls |\n|---|---|---|---|");
    let direct = direct(repository.path(), backends, span)?;
    row("backend called directly", &direct);
    let model = core.model("instant", None)?;
    let through = tokio.block_on(clients(&model, 1, span))?;
    row("through validation, queue, instance thread, mailbox", &through.latencies);
    let added = at(&through.latencies, 0.5).saturating_sub(at(&direct, 0.5));
    println!("| added | {} | | |", micros(added));

    println!("\n### Instances\n\nNo batching, {BATCH_MS} ms a request, {CLIENTS} clients.\n");
    println!("| instances | requests/s | of the limit | p50 ms | p99 ms |\n|---|---|---|---|---|");
    for count in INSTANCES {
        let model = core.model(&format!("instances_{count}"), None)?;
        let found = tokio.block_on(clients(&model, CLIENTS, span))?;
        let limit = f64::from(count) * 1000.0 / f64::from(BATCH_MS);
        let (p50, p99) = (millis(at(&found.latencies, 0.5)), millis(at(&found.latencies, 0.99)));
        println!("| {count} | {:.0} | {:.2} | {p50} | {p99} |", found.rate(), found.rate() / limit);
    }

    println!("\n### Batching\n\n{BATCH_MS} ms a batch, one instance, {CLIENTS} clients.\n");
    println!("| max_batch_size | delay ms | requests/s | mean batch | p50 ms | p99 ms | deviation ms |");
    println!("|---|---|---|---|---|---|---|");
    for size in BATCH_SIZES {
        for delay in DELAYS_MS {
            let name = format!("batch_{size}_{delay}");
            let model = core.model(&name, None)?;
            let found = tokio.block_on(clients(&model, CLIENTS, span))?;
            let (p50, p99) = (millis(at(&found.latencies, 0.5)), millis(at(&found.latencies, 0.99)));
            let (rate, batch, off) = (found.rate(), mean_batch(&core, &name)?, found.deviation_ms());
            println!("| {size} | {delay} | {rate:.0} | {batch:.1} | {p50} | {p99} | {off:.2} |");
        }
    }
    core.begin_drain();
    core.finish_drain(Duration::from_secs(10));
    if added > BAR_NS {
        eprintln!("the scheduler adds {} µs at the median; the bar is {}", micros(added), micros(BAR_NS));
    }
    Ok(added <= BAR_NS)
}

fn write_models(repository: &Path) -> Outcome<()> {
    let write = |name: &str, text: String| -> Outcome<()> {
        std::fs::create_dir_all(repository.join(name).join("1"))?;
        Ok(std::fs::write(repository.join(name).join("config.pbtxt"), config(name, &text))?)
    };
    write("instant", "max_batch_size: 8 dynamic_batching { }".to_owned())?;
    let cost = format!("parameters {{ key: \"execute_delay_ms\" value {{ string_value: \"{BATCH_MS}\" }} }}");
    for count in INSTANCES {
        let text = format!("max_batch_size: 1 instance_group {{ count: {count} }} {cost}");
        write(&format!("instances_{count}"), text)?;
    }
    for (size, delay) in BATCH_SIZES.iter().flat_map(|size| DELAYS_MS.map(|delay| (size, delay))) {
        let us = delay * 1000;
        let text = format!(
            "max_batch_size: {size} dynamic_batching {{ max_queue_delay_microseconds: {us} }} {cost}"
        );
        write(&format!("batch_{size}_{delay}"), text)?;
    }
    Ok(())
}

fn config(name: &str, text: &str) -> String {
    let tensor =
        |kind: &str, name: &str| format!("{kind} {{ name: \"{name}\" data_type: TYPE_FP32 dims: [ 16 ] }}\n");
    let tensors = tensor("input", "INPUT0") + &tensor("output", "OUTPUT0");
    format!("name: \"{name}\" backend: \"identity\"\n{tensors}{text}\n")
}

fn start(repository: &Path, backends: &Path) -> Outcome<Arc<Core>> {
    let options = CoreOptions {
        server_id: "bench".to_owned(),
        repositories: vec![repository.to_owned()],
        remotes: Vec::new(),
        backend_directory: backends.to_owned(),
        backend_cache: None,
        allow_model_backends: false,
        backend_config: Default::default(),
        backend_fallback: Default::default(),
        control_mode: ControlMode::None,
        startup_models: Vec::new(),
        config_name: None,
        auto_complete: true,
        strict_readiness: true,
        exit_on_error: true,
        rate_limit: None,
        start_after: StartAfter::default(),
        load_threads: 1,
        allow_client_shm: false,
        load_retries: 0,
        exit_timeout: Duration::from_secs(10),
        cache_bytes: None,
        limits: Limits::default(),
    };
    let registry: &'static Registry = Box::leak(Box::new(Registry::new(false)));
    let core = Core::start(options, registry, LogLevel::INFO).map_err(|error| error.message)?;
    if !core.startup_ok() {
        return Err(format!("a model did not load: {:?}", core.index(false)).into());
    }
    Ok(core)
}

/// Times of `execute` on this thread, with the request that it is given and the answer that it gives.
fn direct(repository: &Path, backends: &Path, span: u64) -> Outcome<Vec<u64>> {
    let library: PathBuf = backends.join("identity/libtrireme_identity.so");
    let library = Library::open(&library, "identity", &LoadOptions::default())?;
    let services: &'static Services = Box::leak(Box::default());
    let backend = Backend::create(library, services, "{}").map_err(|status| status.message)?;
    let directory = repository.join("instant");
    let json = r#"{"name":"instant","max_batch_size":8,"input":[{"name":"INPUT0","data_type":"TYPE_FP32","dims":["16"]}],
        "output":[{"name":"OUTPUT0","data_type":"TYPE_FP32","dims":["16"]}]}"#;
    let model = backend
        .load(&ModelArgs {
            name: "instant",
            version: 1,
            model_dir: &directory,
            version_dir: &directory.join("1"),
            config_json: json,
        })
        .map_err(|status| status.message)?;
    let args = InstanceArgs { name: "instant_0", index: 0, kind: InstanceKind::CPU, device: 0 };
    let mut instance = model.create_instance(&args).map_err(|status| status.message)?;
    let names: Arc<[Box<str>]> = Arc::new(["INPUT0".into()]);
    let (mut times, mut batch, data) = (Vec::new(), Vec::new(), Bytes::from(vec![0u8; 64]));
    let begin = now_ns();
    while now_ns() - begin < span {
        let start = now_ns();
        let input =
            Input { index: 0, dtype: DType::FP32, shape: smallvec![1, 16], buffers: smallvec![data.clone()] };
        let request = Box::new(Request {
            id: String::new(),
            inputs: smallvec![input],
            parameters: Vec::new(),
            wanted: OutputSet::all(1),
            batch_size: 1,
            priority: 0,
            deadline_ns: 0,
            correlation: Correlation::None,
            trace_parent: String::new(),
            document: None,
            names: Arc::clone(&names),
        });
        batch.push(Item { request, responder: Responder::new(Arc::new(Nobody(AtomicU32::new(0)))) });
        instance.execute(&mut batch).map_err(|status| status.message)?;
        times.push(now_ns() - start);
    }
    instance.drain();
    times.sort_unstable();
    Ok(times)
}

/// Takes answers and forgets them.
struct Nobody(AtomicU32);

impl ResponseSink for Nobody {
    fn send(&self, _: Response, _: bool) -> Verdict {
        Verdict::Continue
    }
    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }
    fn cancelled(&self) -> &AtomicU32 {
        &self.0
    }
    fn mark(&self, _: Stage, _: u64) {}
}

#[derive(Default)]
struct Services(AtomicU32);

impl trireme_host::HostServices for Services {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
    fn log_level(&self) -> &AtomicU32 {
        &self.0
    }
    fn metric(
        &self,
        name: &str,
        _: &str,
        _: trireme_host::abi::MetricKind,
        _: &[(&str, &str)],
    ) -> Result<&'static std::sync::atomic::AtomicU64, trireme_host::Status> {
        Err(trireme_host::Status::internal(name))
    }
    fn now_ns(&self) -> u64 {
        now_ns()
    }
    fn extension(&self, _: &str) -> *const std::ffi::c_void {
        std::ptr::null()
    }
}

struct Found {
    /// Nanoseconds, ascending.
    latencies: Vec<u64>,
    span: u64,
}

impl Found {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / (self.span as f64 / 1e9)
    }

    fn deviation_ms(&self) -> f64 {
        let count = self.latencies.len().max(1) as f64;
        let mean = self.latencies.iter().map(|one| *one as f64).sum::<f64>() / count;
        let square = |one: &u64| (*one as f64 - mean).powi(2);
        (self.latencies.iter().map(square).sum::<f64>() / count).sqrt() / 1e6
    }
}

/// So many clients on this thread, each with one request after the other. A tenth of the time is a warm-up.
async fn clients(model: &Arc<Served>, count: usize, span: u64) -> Outcome<Found> {
    let begin = now_ns() + span / 10;
    let set = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let model = Arc::clone(model);
            set.spawn_local(async move {
                let data = Bytes::from(vec![0u8; 64]);
                let mut latencies = Vec::new();
                loop {
                    let start = now_ns();
                    if start >= begin + span {
                        return Ok(latencies);
                    }
                    let input = InputTensor {
                        name: "INPUT0".to_owned(),
                        datatype: DataType::Fp32,
                        shape: [1, 16].into_iter().collect(),
                        data: TensorData::Bytes(data.clone()),
                    };
                    let mut request = InferRequest::new("", None);
                    request.inputs.push(input);
                    if let Err(error) = model.infer(request).await {
                        return Err(error.message);
                    }
                    if start >= begin {
                        latencies.push(now_ns() - start);
                    }
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    set.run_until(async {
        for task in tasks {
            latencies.extend(task.await.map_err(|error| error.to_string())??);
        }
        Ok::<_, String>(())
    })
    .await?;
    latencies.sort_unstable();
    Ok(Found { latencies, span })
}

fn mean_batch(core: &Core, name: &str) -> Outcome<f64> {
    let statistics = core.statistics(Some(name), None)?;
    let one = statistics.first().ok_or("no statistics")?;
    Ok(one.inference_count as f64 / one.execution_count.max(1) as f64)
}

fn row(what: &str, sorted: &[u64]) {
    println!("| {what} | {} | {} | {} |", micros(at(sorted, 0.5)), micros(at(sorted, 0.99)), sorted.len());
}

/// The value below which this share of them lies.
fn at(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share) as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn micros(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e3)
}

fn millis(ns: u64) -> String {
    format!("{:.2}", ns as f64 / 1e6)
}
