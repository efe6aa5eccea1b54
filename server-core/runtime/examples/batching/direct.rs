//! A backend called without a server around it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use smallvec::smallvec;
use trireme_host::abi::{DType, InstanceKind, LogLevel, MetricKind, Stage};
use trireme_host::{
    Backend, Correlation, HostServices, Input, InstanceArgs, Item, Library, LoadOptions, ModelArgs,
    OutputSet, Request, Responder, Response, ResponseSink, Status, Verdict,
};
use trireme_telemetry::clock::now_ns;

/// Times of `execute` on this thread in ascending order, with the request that it is given and the answer that it gives.
/// `cost_ms`: what one call is to cost.
pub(crate) fn calls(backends: &Path, cost_ms: u32, span: u64) -> Result<Vec<u64>, Box<dyn Error>> {
    let library: PathBuf = backends.join("identity/libtrireme_identity.so");
    let library = Library::open(&library, "identity", &LoadOptions::default())?;
    let services: &'static Services = Box::leak(Box::default());
    let backend = Backend::create(library, services, "{}").map_err(|status| status.message)?;
    let tensor = |name: &str| format!(r#"[{{"name":"{name}","data_type":"TYPE_FP32","dims":["16"]}}]"#);
    let json = format!(
        r#"{{"name":"direct","max_batch_size":8,"input":{},"output":{},
            "parameters":{{"execute_delay_ms":{{"string_value":"{cost_ms}"}}}}}}"#,
        tensor("INPUT0"),
        tensor("OUTPUT0")
    );
    let model = backend
        .load(&ModelArgs {
            name: "direct",
            version: 1,
            model_dir: backends,
            version_dir: backends,
            config_json: &json,
        })
        .map_err(|status| status.message)?;
    let args = InstanceArgs { name: "direct_0", index: 0, kind: InstanceKind::CPU, device: 0 };
    let mut instance = model.create_instance(&args).map_err(|status| status.message)?;
    let names: Arc<[Box<str>]> = Arc::new(["INPUT0".into()]);
    let (mut times, mut batch, data) = (Vec::new(), Vec::new(), Bytes::from(vec![0u8; 64]));
    let begin = now_ns();
    while now_ns() - begin < span {
        let start = now_ns();
        let (shape, buffers) = (smallvec![1, 16], smallvec![data.clone()]);
        let input = Input { index: 0, dtype: DType::FP32, shape, buffers, device: None };
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

impl HostServices for Services {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
    fn log_level(&self) -> &AtomicU32 {
        &self.0
    }
    fn metric(
        &self,
        name: &str,
        _: &str,
        _: MetricKind,
        _: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status> {
        Err(Status::internal(name))
    }
    fn now_ns(&self) -> u64 {
        now_ns()
    }
    fn extension(&self, _: &str) -> *const std::ffi::c_void {
        std::ptr::null()
    }
}
