//! A host of one model in a process of its own: requests on standard input, answers on standard output.
//!
//! `pipe_host LIBRARY BACKEND CONFIG_JSON`
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "standard output is for the answers")]

use std::env;
use std::ffi::c_void;
use std::io::{self, BufReader, Stdout};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use trireme_host::abi::{DType, InstanceKind, LogLevel, MetricKind, Stage};
use trireme_host::{
    Backend, Correlation, HostServices, Input, InstanceArgs, Item, Library, LoadOptions, ModelArgs,
    OutputSet, Request, Responder, Response, ResponseSink, Status, Verdict,
};
use trireme_tests::pipe::{Message, Tensor};

struct Services {
    level: AtomicU32,
}

static SERVICES: Services = Services { level: AtomicU32::new(LogLevel::INFO.0) };

impl HostServices for Services {
    fn log(&self, _: LogLevel, source: &str, message: &str) {
        eprintln!("{source}: {message}");
    }
    fn log_level(&self) -> &AtomicU32 {
        &self.level
    }
    fn metric(
        &self,
        _: &str,
        _: &str,
        _: MetricKind,
        _: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status> {
        Ok(Box::leak(Box::default()))
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn extension(&self, _: &str) -> *const c_void {
        std::ptr::null()
    }
}

/// Writes each answer to the pipe. A full pipe holds the backend up, so it never needs to pause.
struct PipeSink {
    id: u64,
    out: Arc<Mutex<Stdout>>,
    cancelled: AtomicU32,
}

impl ResponseSink for PipeSink {
    fn send(&self, response: Response, _: bool) -> Verdict {
        let (status, text) = response.error.map(|error| (error.code.0, error.message)).unwrap_or_default();
        let tensor = |output: trireme_host::Output| Tensor {
            name: output.name,
            dtype: output.dtype.0,
            shape: output.shape.to_vec(),
            data: output.data.to_vec(),
        };
        let tensors = response.outputs.into_iter().map(tensor).collect();
        let message = Message { id: self.id, status, text, tensors };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match message.write(&mut *out) {
            Ok(()) => Verdict::Continue,
            Err(_) => Verdict::Cancelled,
        }
    }
    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }
    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }
    fn mark(&self, _: Stage, _: u64) {}
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [library, backend, config_json] = args.as_slice() else {
        return Err(anyhow!("needs LIBRARY BACKEND CONFIG_JSON"));
    };
    let config: serde_json::Value = serde_json::from_str(config_json).context("the configuration")?;
    let names = |list: &str| -> Arc<[Box<str>]> {
        let tensors = config[list].as_array().into_iter().flatten();
        tensors.map(|tensor| tensor["name"].as_str().unwrap_or_default().into()).collect()
    };
    let (inputs, outputs) = (names("input"), names("output").len());
    let library = Library::open(Path::new(library), backend, &LoadOptions::default())?;
    let here = Path::new(".");
    let args = ModelArgs { name: "piped", version: 1, model_dir: here, version_dir: here, config_json };
    let model = Backend::create(library, &SERVICES, "{}")?.load(&args)?;
    let args = InstanceArgs { name: "piped_0", index: 0, kind: InstanceKind::CPU, device: 0 };
    let mut instance = model.create_instance(&args)?;

    let (mut requests, out) = (BufReader::new(io::stdin()), Arc::new(Mutex::new(io::stdout())));
    while let Some(message) = Message::read(&mut requests)? {
        let sink = PipeSink { id: message.id, out: Arc::clone(&out), cancelled: AtomicU32::new(0) };
        let responder = Responder::new(Arc::new(sink));
        match request(message, &inputs, outputs) {
            Ok(request) => instance.execute(&mut vec![Item { request, responder }])?,
            Err(error) => responder.fail(Status::invalid(error.to_string())),
        }
    }
    instance.drain();
    Ok(())
}

fn request(message: Message, names: &Arc<[Box<str>]>, outputs: usize) -> Result<Box<Request>> {
    let input = |tensor: Tensor| {
        let index = names.iter().position(|name| **name == *tensor.name);
        let index = index.with_context(|| format!("the model has no input '{}'", tensor.name))?;
        Ok(Input {
            index: u16::try_from(index)?,
            dtype: DType(tensor.dtype),
            shape: SmallVec::from_vec(tensor.shape),
            buffers: smallvec![Bytes::from(tensor.data)],
            device: None,
        })
    };
    Ok(Box::new(Request {
        id: message.id.to_string(),
        inputs: message.tensors.into_iter().map(input).collect::<Result<_>>()?,
        parameters: Vec::new(),
        wanted: OutputSet::all(outputs),
        batch_size: 1,
        priority: 0,
        deadline_ns: 0,
        correlation: Correlation::None,
        trace_parent: String::new(),
        document: None,
        names: Arc::clone(names),
    }))
}
