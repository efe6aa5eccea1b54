//! What the host does with tensors on devices, on devices whose memory ends the process when the CPU touches it.
#![allow(clippy::unwrap_used)]

#[path = "../examples/guarded/lib.rs"]
mod guarded;

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;
use trireme_host::abi::{
    DEVICE_1, DType, DeviceVtable, InstanceKind, IpcMemory, LogLevel, MemoryKind, MetricKind, Stage,
};
use trireme_host::{
    Backend, Correlation, DeviceTensor, HostServices, Input, Instance, InstanceArgs, Item, Library,
    ModelArgs, Output, OutputSet, Request, Responder, Response, ResponseSink, Status, Verdict, device_copies,
};

/// Values that a test may look at.
static METRICS: Mutex<Vec<(String, &'static AtomicU64)>> = Mutex::new(Vec::new());

struct Services(AtomicU32);

static SERVICES: Services = Services(AtomicU32::new(0));

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
        let cell: &'static AtomicU64 = Box::leak(Box::default());
        METRICS.lock().unwrap().push((name.to_owned(), cell));
        Ok(cell)
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn extension(&self, _: &str) -> *const std::ffi::c_void {
        std::ptr::null()
    }
}

fn metric(name: &str) -> f64 {
    let metrics = METRICS.lock().unwrap();
    let (_, cell) = metrics.iter().find(|(known, _)| known == name).unwrap();
    f64::from_bits(cell.load(std::sync::atomic::Ordering::Relaxed))
}

/// Keeps the answer; reads the memory of devices, or not.
#[derive(Default)]
struct Reader {
    reads_devices: bool,
    answer: Mutex<Option<Response>>,
    cancelled: AtomicU32,
}

impl ResponseSink for Reader {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        assert!(is_final && self.answer.lock().unwrap().replace(response).is_none());
        Verdict::Continue
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {}

    fn reads_device(&self, _: &str, _: i32) -> bool {
        self.reads_devices
    }
}

fn backend() -> Arc<Backend> {
    // SAFETY: made by `export_backend!`, from the functions of the backend.
    let library = unsafe { Library::from_static(&guarded::trireme_backend_probe) }.unwrap();
    Backend::create(library, &SERVICES, r#"{"cmdline": {}}"#).unwrap()
}

/// An instance on a GPU of a model with these parameters.
fn instance(backend: &Arc<Backend>, parameters: &[(&str, &str)], device: i32) -> Instance {
    let texts: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!(r#""{name}": {{"string_value": "{value}"}}"#))
        .collect();
    let config_json = format!(r#"{{"parameters": {{{}}}}}"#, texts.join(","));
    let here = Path::new(".");
    let args =
        ModelArgs { name: "m", version: 1, model_dir: here, version_dir: here, config_json: &config_json };
    let model = backend.load(&args).unwrap();
    let args = InstanceArgs { name: "m_0", index: 0, kind: InstanceKind::GPU, device };
    model.create_instance(&args).unwrap()
}

enum X {
    Host(Vec<f32>),
    Device(DeviceTensor),
}

fn ask(instance: &mut Instance, x: X, reads_devices: bool) -> Response {
    ask_with(instance, None, x, reads_devices)
}

/// As [`ask`], with an input KEPT in front.
fn ask_with(instance: &mut Instance, kept: Option<Input>, x: X, reads_devices: bool) -> Response {
    let (len, buffers, device) = match x {
        X::Host(values) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (values.len(), smallvec![Bytes::from(bytes)], None)
        }
        X::Device(tensor) => (tensor.byte_size() / 4, smallvec![], Some(tensor)),
    };
    let x = Input { index: 1, dtype: DType::FP32, shape: smallvec![len as i64], buffers, device };
    let request = Box::new(Request {
        id: String::new(),
        inputs: kept.into_iter().chain([x]).collect(),
        parameters: Vec::new(),
        wanted: OutputSet::all(2),
        batch_size: 1,
        priority: 0,
        deadline_ns: 0,
        document: None,
        correlation: Correlation::None,
        trace_parent: String::new(),
        names: ["KEPT".into(), "X".into()].into(),
    });
    let reader = Arc::new(Reader { reads_devices, ..Reader::default() });
    let responder = Responder::new(Arc::clone(&reader) as Arc<dyn ResponseSink>);
    // Not drained: the kernel may still run.
    instance.execute(&mut vec![Item { request, responder }]).unwrap();
    reader.answer.lock().unwrap().take().unwrap()
}

fn output<'a>(response: &'a Response, name: &str) -> &'a Output {
    assert_eq!(response.error, None);
    response.outputs.iter().find(|output| output.name == name).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn addresses(response: &Response) -> Vec<u64> {
    let bytes = &output(response, "WHERE").data;
    bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// How many bytes a piece of work copies: up, down, between devices.
fn copies<R>(work: impl FnOnce() -> R) -> (R, [u64; 3]) {
    let before = device_copies();
    let result = work();
    let after = device_copies();
    let all =
        [after.to_device - before.to_device, after.to_host - before.to_host, after.between - before.between];
    (result, all)
}

#[test]
fn who_reads_devices_gets_the_tensor_and_who_does_not_its_bytes() {
    let backend = backend();
    // The kernel still runs when the answer is there: whoever reads it waits.
    let mut double = instance(&backend, &[("factor", "2"), ("delay_ms", "30")], 0);
    let (response, copied) = copies(|| ask(&mut double, X::Host(vec![1.0, 2.0, 3.0]), false));
    let y = output(&response, "Y");
    assert_eq!((floats(&y.data), &y.device), (vec![2.0, 4.0, 6.0], &None));
    assert_eq!(copied, [12, 12, 0]);

    let (response, copied) = copies(|| ask(&mut double, X::Host(vec![1.0, 2.0, 3.0]), true));
    let tensor = output(&response, "Y").device.clone().unwrap();
    assert!(output(&response, "Y").data.is_empty());
    assert_eq!((tensor.byte_size(), tensor.device(), copied), (12, 0, [12, 0, 0]));
    // One copy for all that ask.
    let (_, copied) = copies(|| {
        assert_eq!(floats(&tensor.to_host().unwrap()), [2.0, 4.0, 6.0]);
        assert_eq!(tensor.to_host().unwrap().as_ptr(), tensor.clone().to_host().unwrap().as_ptr());
    });
    assert_eq!(copied, [0, 12, 0]);
}

#[test]
fn an_input_is_read_where_it_is_or_where_the_instance_is() {
    let backend = backend();
    let mut first = instance(&backend, &[("factor", "2")], 0);
    let mut same = instance(&backend, &[("factor", "3")], 0);
    let mut other = instance(&backend, &[("factor", "5")], 1);
    let mut forward = instance(&backend, &[("forward", "true")], 0);
    let response = ask(&mut first, X::Host(vec![1.0, -1.0]), true);
    let (written, tensor) = (addresses(&response)[1], output(&response, "Y").device.clone().unwrap());

    let (response, copied) = copies(|| ask(&mut same, X::Device(tensor.clone()), true));
    assert_eq!((addresses(&response)[0], copied), (written, [0, 0, 0]));
    assert_eq!(floats(&output(&response, "Y").device.as_ref().unwrap().to_host().unwrap()), [6.0, -6.0]);

    let (response, copied) = copies(|| ask(&mut other, X::Device(tensor.clone()), true));
    assert_ne!(addresses(&response)[0], written);
    assert_eq!(copied, [0, 0, 8]);
    let there = output(&response, "Y").device.clone().unwrap();
    assert_eq!((there.device(), floats(&there.to_host().unwrap())), (1, vec![10.0, -10.0]));

    // What is passed on is the same memory, which the answer keeps.
    let (response, copied) = copies(|| ask(&mut forward, X::Device(tensor), true));
    assert_eq!((addresses(&response)[0], copied), (written, [0, 0, 0]));
    assert_eq!(floats(&output(&response, "Y").device.as_ref().unwrap().to_host().unwrap()), [2.0, -2.0]);
}

#[test]
fn memory_lives_as_long_as_somebody_reads_it() {
    let backend = backend();
    let mut slow = instance(&backend, &[("factor", "2"), ("delay_ms", "30")], 0);
    let idle = metric("guarded_bytes");
    let tensors: Vec<DeviceTensor> = (0..4)
        .map(|number| {
            let response = ask(&mut slow, X::Host(vec![number as f32; 5000]), true);
            output(&response, "Y").device.clone().unwrap()
        })
        .collect();
    // The instance, its model and the backend go; the provider stays.
    drop((slow, backend));
    for (number, tensor) in tensors.iter().enumerate() {
        assert_eq!(floats(&tensor.to_host().unwrap())[4999], 2.0 * number as f32);
    }
    let held = metric("guarded_bytes");
    drop(tensors);
    // The pool of the GPU stays.
    assert_eq!(held - metric("guarded_bytes"), 4.0 * 20480.0);
    assert_eq!(metric("guarded_bytes") - idle, (64 << 20) as f64);
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
fn memory_is_not_freed_under_a_kernel_that_reads_it() {
    let backend = backend();
    let mut first = instance(&backend, &[("factor", "2")], 0);
    let mut slow = instance(&backend, &[("factor", "3"), ("delay_ms", "50")], 0);
    let response = ask(&mut first, X::Host(vec![5.0; 2000]), true);
    let tensor = output(&response, "Y").device.clone().unwrap();
    drop(response);
    // The request is released while the kernel waits to read the only copy.
    let response = ask(&mut slow, X::Device(tensor), true);
    assert_eq!(floats(&output(&response, "Y").device.as_ref().unwrap().to_host().unwrap()), [30.0; 2000]);
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
fn memory_that_nobody_reads_is_not_used_anew_under_the_kernel_that_writes_it() {
    let backend = backend();
    for (output, reads_devices) in [("own", true), ("asked", false)] {
        let parameters = [("factor", "2"), ("delay_ms", "300"), ("output", output)];
        let mut slow = instance(&backend, &parameters, 0);
        // Nobody has looked at Y when it is given back.
        drop(ask(&mut slow, X::Host(vec![1.0; 2000]), reads_devices));
        slow.drain();
    }
    // That of the server's pool: the next one gets other memory, as the kernel of the first still runs.
    let mut slow = instance(&backend, &[("factor", "2"), ("delay_ms", "300"), ("output", "asked")], 0);
    let first = ask(&mut slow, X::Host(vec![1.0; 2000]), true);
    let address = addresses(&first)[1];
    drop(first);
    let second = ask(&mut slow, X::Host(vec![3.0; 2000]), true);
    assert_ne!(addresses(&second)[1], address);
    assert_eq!(floats(&output(&second, "Y").device.as_ref().unwrap().to_host().unwrap()), [6.0; 2000]);
    drop(second);
    // Both are free again.
    let mut fast = instance(&backend, &[("output", "asked")], 0);
    let reused = ask(&mut fast, X::Host(vec![1.0; 2000]), true);
    assert!(addresses(&reused)[1] <= address);
    drop(reused);
    fast.drain();
    drop(ask(&mut fast, X::Host(vec![1.0; 2000]), true));
    fast.drain();
    let events = metric("guarded_events");
    assert!(events <= 2.0, "{events} events, more than of the two parts that were given back last");
    drop((slow, fast));
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
#[expect(clippy::disallowed_types, reason = "the work of the device takes real time")]
fn who_cannot_give_the_inputs_back_waits_for_the_kernel_that_reads_one_of_them() {
    let backend = backend();
    let mut first = instance(&backend, &[("factor", "2")], 0);
    let mut slow = instance(&backend, &[("factor", "3"), ("delay_ms", "200")], 0);
    let tensor = output(&ask(&mut first, X::Host(vec![1.0]), true), "Y").device.clone().unwrap();
    let bytes = Bytes::from_static(&[7; 4]);
    let kept =
        Input { index: 0, dtype: DType::FP32, shape: smallvec![1], buffers: smallvec![bytes], device: None };
    let begun = std::time::Instant::now();
    let response = ask_with(&mut slow, Some(kept), X::Device(tensor), true);
    // The first input is not on a device; the event is that of the second.
    assert!(begun.elapsed() >= Duration::from_millis(200), "the kernel still runs");
    assert_eq!(&output(&response, "KEPT").data[..], [7; 4]);
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
fn memory_is_kept_under_an_event_although_a_reader_has_ended_that_did_not_wait() {
    let backend = backend();
    let mut slow = instance(&backend, &[("factor", "2"), ("delay_ms", "300")], 0);
    let mut forward = instance(&backend, &[("forward", "true")], 0);
    let response = ask(&mut slow, X::Host(vec![1.0; 2000]), true);
    let tensor = output(&response, "Y").device.clone().unwrap();
    drop(response);
    // It passes the tensor on, unread, and the answer is not wanted.
    drop(ask(&mut forward, X::Device(tensor), true));
    slow.drain();
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
fn a_copy_that_fails_ends_its_request_only() {
    let backend = backend();
    let mut broken = instance(&backend, &[("broken", "true")], 0);
    let response = ask(&mut broken, X::Host(vec![1.0; 4]), false);
    let error = response.error.unwrap().message;
    let expected = "output 'Y': 16 bytes could not be copied from GPU 0 to the memory of the process: an uncorrectable error";
    assert!(error.contains(expected), "{error}");
    // Nobody copies it for a reader of devices, and the next one is told.
    let response = ask(&mut broken, X::Host(vec![1.0; 4]), true);
    let tensor = output(&response, "Y").device.clone().unwrap();
    let mut other = instance(&backend, &[], 1);
    let error = ask(&mut other, X::Device(tensor), true).error.unwrap().message;
    assert!(error.contains("could not be copied from GPU 0 to GPU 1"), "{error}");
    assert_eq!(metric("guarded_misuses"), 0.0);
}

#[test]
fn memory_of_another_process_is_opened_by_its_handle() {
    let backend = backend();
    let mut double = instance(&backend, &[("factor", "2")], 0);
    let response = ask(&mut double, X::Host((0..100).map(|x| x as f32).collect()), true);
    let (address, tensor) = (addresses(&response)[1], output(&response, "Y").device.clone().unwrap());
    // Another process knows nothing of events.
    double.drain();
    let table = backend.extension(DEVICE_1).cast::<DeviceVtable>();
    let range = trireme_host::abi::MemoryRange {
        data: std::ptr::without_provenance_mut(address as usize),
        len: tensor.byte_size(),
        kind: MemoryKind::GPU,
        device: 0,
    };
    let mut handle = [0u8; 64];
    let mut out = IpcMemory { handle: std::ptr::null(), handle_len: 0, offset: 0, byte_size: 0 };
    // SAFETY: the table is the backend's; the range and the places for the results live until the call returns.
    let status = unsafe {
        ((*table).ipc_export)((*table).context, &range, handle.as_mut_ptr(), handle.len(), &mut out)
    };
    assert_eq!((status.code.0, out.handle_len, out.offset, out.byte_size), (0, 64, 0, 400));
    let opened = trireme_host::open_shared(0, &handle, 400).unwrap();
    let region = Arc::new(());
    let part = opened.part(4, 8, Arc::clone(&region)).unwrap();
    assert_eq!(floats(&part.to_host().unwrap()), [2.0, 4.0]);
    opened.write(4, &7.5f32.to_le_bytes()).unwrap();
    assert_eq!(floats(&tensor.to_host().unwrap())[..3], [0.0, 7.5, 4.0], "it is the same memory");
    assert!(opened.part(396, 5, ()).is_none() && opened.write(397, &[0; 4]).is_err());
    let refused =
        |handle: &[u8], device, size| trireme_host::open_shared(device, handle, size).unwrap_err().message;
    assert!(refused(&handle, 0, 5000).contains("the allocation has 4096 bytes, wanted are 5000"));
    assert!(refused(&[1; 64], 0, 4).contains("the handle is none of this device"));
    assert_eq!(refused(&handle, 7, 4), "there is no device provider for memory of kind 2 of GPU 7");
    // Whoever reads the part keeps what was kept with it.
    let mut forward = instance(&backend, &[("forward", "true")], 0);
    let answer = ask(&mut forward, X::Device(part), true);
    assert_eq!(Arc::strong_count(&region), 2);
    drop(answer);
    assert_eq!(Arc::strong_count(&region), 1);
    drop((opened, tensor, response));
    assert_eq!(metric("guarded_misuses"), 0.0);
}
