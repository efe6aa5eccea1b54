//! What the scheduler costs and what batching gains, in process and without a network.
//!
//! `batching BACKENDS SECONDS`: the folder of the built backends, and how long each cell runs. Prints tables in Markdown;
//! the exit status is 1 if the added latency misses its bar. `cargo xtask bench batching` builds and runs it.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod direct;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Handle};
use trireme_host::abi::LogLevel;
use trireme_protocol::{DataType, InferRequest, InputTensor, TensorData};
use trireme_runtime::{Core, CoreOptions, Served};
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
/// Requests a second of a model that has little to do.
const RATES: [u64; 2] = [200, 2000];

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
    let io = io_thread()?;
    let span = (seconds * 1e9) as u64;
    let added = latency(&core, backends, &io, span)?;
    quiet(&core, &io, span)?;
    instances(&core, backends, &io, span)?;
    batches(&core, &io, span)?;
    core.begin_drain();
    core.finish_drain(Duration::from_secs(10));
    if added > BAR_NS {
        eprintln!("the scheduler adds {} µs at the median; the bar is {}", micros(added), micros(BAR_NS));
    }
    Ok(added <= BAR_NS)
}

/// What the way through the server adds to a call, in nanoseconds at the median.
fn latency(core: &Core, backends: &Path, io: &Handle, span: u64) -> Outcome<u64> {
    println!("### Added latency\n\nOne client, which asks again when it has its answer.\n");
    println!("| | p50 µs | p99 µs | calls |\n|---|---|---|---|");
    let row = |what: &str, sorted: &[u64]| {
        println!(
            "| {what} | {} | {} | {} |",
            micros(at(sorted, 0.5)),
            micros(at(sorted, 0.99)),
            sorted.len()
        );
    };
    let direct = direct::calls(backends, 0, span)?;
    row("backend called directly", &direct);
    let model = core.model("instant", None)?;
    let through = clients(io, &model, 1, span)?.latencies;
    row(
        "through validation, queue, instance thread, mailbox, from an I/O thread as the server has them",
        &through,
    );
    let added = at(&through, 0.5).saturating_sub(at(&direct, 0.5));
    println!("| added | {} | | |", micros(added));
    let several = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    row("the same from a runtime of two threads", &clients(several.handle(), &model, 1, span)?.latencies);
    Ok(added)
}

/// What a model costs that has little to do: requests now and then, and none.
fn quiet(core: &Core, io: &Handle, span: u64) -> Outcome<()> {
    println!("\n### Few requests\n\nOne client, which asks at fixed times. CPU: of one core.\n");
    println!("| requests/s | p50 µs | p99 µs | CPU % |\n|---|---|---|---|");
    let model = core.model("instant", None)?;
    let every = |rate: u64| Some(Duration::from_nanos(1_000_000_000 / rate));
    for rate in RATES {
        let (begin, cpu) = (now_ns(), cpu_ns());
        let found = on(io, paced(Arc::clone(&model), every(rate), span))?;
        let share = (cpu_ns() - cpu) as f64 / (now_ns() - begin) as f64;
        let (p50, p99) = (micros(at(&found, 0.5)), micros(at(&found, 0.99)));
        println!("| {rate} | {p50} | {p99} | {:.2} |", share * 100.0);
    }
    let (begin, cpu) = (now_ns(), cpu_ns());
    on(io, paced(model, None, span))?;
    let share = (cpu_ns() - cpu) as f64 / (now_ns() - begin) as f64;
    println!("| 0 | | | {:.2} |", share * 100.0);
    Ok(())
}

fn instances(core: &Core, backends: &Path, io: &Handle, span: u64) -> Outcome<()> {
    let alone = at(&direct::calls(backends, BATCH_MS, span)?, 0.5);
    println!("\n### Instances\n\nNo batching, {BATCH_MS} ms a request, {CLIENTS} clients. ");
    println!("Called directly the backend takes {} ms.\n", millis(alone));
    println!(
        "| instances | requests/s | of the limit | of direct calls | p50 ms | p99 ms |\n|---|---|---|---|---|---|"
    );
    for count in INSTANCES {
        let model = core.model(&format!("instances_{count}"), None)?;
        let found = clients(io, &model, CLIENTS, span)?;
        let limit = f64::from(count) * 1000.0 / f64::from(BATCH_MS);
        let reachable = f64::from(count) * 1e9 / alone as f64;
        let (p50, p99) = (millis(at(&found.latencies, 0.5)), millis(at(&found.latencies, 0.99)));
        let (rate, of, direct) = (found.rate(), found.rate() / limit, found.rate() / reachable);
        println!("| {count} | {rate:.0} | {of:.2} | {direct:.2} | {p50} | {p99} |");
    }
    Ok(())
}

fn batches(core: &Core, io: &Handle, span: u64) -> Outcome<()> {
    println!("\n### Batching\n\n{BATCH_MS} ms a batch, one instance, {CLIENTS} clients.\n");
    println!("| max_batch_size | delay ms | requests/s | mean batch | p50 ms | p99 ms | deviation ms |");
    println!("|---|---|---|---|---|---|---|");
    for size in BATCH_SIZES {
        for delay in DELAYS_MS {
            let name = format!("batch_{size}_{delay}");
            let model = core.model(&name, None)?;
            let found = clients(io, &model, CLIENTS, span)?;
            let (p50, p99) = (millis(at(&found.latencies, 0.5)), millis(at(&found.latencies, 0.99)));
            let (rate, batch, off) = (found.rate(), mean_batch(core, &name)?, found.deviation_ms());
            println!("| {size} | {delay} | {rate:.0} | {batch:.1} | {p50} | {p99} | {off:.2} |");
        }
    }
    Ok(())
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
        backend_directory: backends.to_owned(),
        exit_timeout: Duration::from_secs(10),
        ..CoreOptions::default()
    };
    let registry: &'static Registry = Box::leak(Box::new(Registry::new(false)));
    let core = Core::start(options, registry, LogLevel::INFO).map_err(|error| error.message)?;
    if !core.startup_ok() {
        return Err(format!("a model did not load: {:?}", core.index(false)).into());
    }
    Ok(core)
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

/// A thread that serves connections, as `trireme serve` has them: a runtime of its own.
fn io_thread() -> Outcome<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("io0".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Runs a task there and waits for it here.
fn on<T: Send + 'static>(
    handle: &Handle,
    task: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Outcome<T> {
    let (done, result) = std::sync::mpsc::channel();
    handle.spawn(async move {
        let _ = done.send(task.await);
    });
    Ok(result.recv()??)
}

fn request(data: &Bytes) -> InferRequest {
    let mut request = InferRequest::new("", None);
    request.inputs.push(InputTensor {
        name: "INPUT0".to_owned(),
        datatype: DataType::Fp32,
        shape: [1, 16].into_iter().collect(),
        data: TensorData::Bytes(data.clone()),
    });
    request
}

/// One request after the other until `end`. Latencies of those that begin after `begin`, in nanoseconds.
async fn client(model: Arc<Served>, begin: u64, end: u64) -> Result<Vec<u64>, String> {
    let (data, mut latencies) = (Bytes::from(vec![0u8; 64]), Vec::new());
    loop {
        let start = now_ns();
        if start >= end {
            return Ok(latencies);
        }
        model.infer(request(&data)).await.map_err(|error| error.message)?;
        if start >= begin {
            latencies.push(now_ns() - start);
        }
    }
}

/// A request at fixed times, for so long; without a distance between them only the time.
async fn paced(model: Arc<Served>, distance: Option<Duration>, span: u64) -> Result<Vec<u64>, String> {
    let Some(distance) = distance else {
        tokio::time::sleep(Duration::from_nanos(span)).await;
        return Ok(Vec::new());
    };
    let (data, mut latencies) = (Bytes::from(vec![0u8; 64]), Vec::new());
    let (mut times, end) = (tokio::time::interval(distance), now_ns() + span);
    while now_ns() < end {
        times.tick().await;
        let start = now_ns();
        model.infer(request(&data)).await.map_err(|error| error.message)?;
        latencies.push(now_ns() - start);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// So many clients there, each with one request after the other. A tenth of the time is a warm-up.
fn clients(handle: &Handle, model: &Arc<Served>, count: usize, span: u64) -> Outcome<Found> {
    let begin = now_ns() + span / 10;
    let model = Arc::clone(model);
    let all = async move {
        let tasks: Vec<_> =
            (0..count).map(|_| tokio::spawn(client(Arc::clone(&model), begin, begin + span))).collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.map_err(|error| error.to_string())??);
        }
        latencies.sort_unstable();
        Ok(Found { latencies, span })
    };
    on(handle, all)
}

/// What the process has used of all CPUs.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn mean_batch(core: &Core, name: &str) -> Outcome<f64> {
    let statistics = core.statistics(Some(name), None)?;
    let one = statistics.first().ok_or("no statistics")?;
    Ok(one.inference_count as f64 / one.execution_count.max(1) as f64)
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
