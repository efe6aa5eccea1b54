//! From the traits to the wire.

use std::ffi::c_void;
use std::path::PathBuf;

use abi::{
    ABI_MAJOR, ABI_MINOR, BackendArgsPtr, BackendInfo, BackendInfoPtr, BackendVtable, BackendVtablePtr,
    InstanceArgsPtr, InstanceVtable, InstanceVtablePtr, LAYOUT_TAG, ModelArgsPtr, ModelVtable,
    ModelVtablePtr, OwnedText, PROBE_MAGIC, PanicStrategy, RequestItem, Status, StrView,
};
use trireme_abi as abi;

pub use abi::Probe;

use crate::backend::{Backend, BackendContext, Devices, Instance, InstanceContext, Model, ModelContext};
use crate::config::Config;
use crate::error::Result;
use crate::fence::fence;
use crate::host::Host;
use crate::openai::OpenAiHalf;
use crate::provider::Half;
use crate::request::Request;
use crate::wire::{owned_text, status, text};

/// What a backend is to the server: the author's value and the host that it was created with.
struct BackendBox<B> {
    backend: B,
    host: Host,
    /// Its half of `device/1`, if it has one.
    devices: Option<&'static abi::DeviceVtable>,
}

struct ModelBox<M> {
    /// Absent if the model answers no such calls.
    openai: Option<Box<OpenAiHalf>>,
    model: M,
    host: Host,
}

struct InstanceBox<I> {
    instance: I,
    host: Host,
}

/// The tables of a backend type.
pub struct Tables<B>(std::marker::PhantomData<B>);

impl<B: Backend> Tables<B> {
    const BACKEND: BackendVtable = BackendVtable {
        struct_size: size_of::<BackendVtable>(),
        model: ModelVtablePtr(&Self::MODEL),
        instance: InstanceVtablePtr(&Self::INSTANCE),
        info: info::<B>,
        create: create::<B>,
        destroy: destroy::<BackendBox<B>>,
        complete_config: complete_config::<B>,
        load: load::<B>,
        extension: Some(backend_extension::<B>),
    };
    const MODEL: ModelVtable = ModelVtable {
        struct_size: size_of::<ModelVtable>(),
        create_instance: create_instance::<B::Model>,
        unload: destroy::<ModelBox<B::Model>>,
        extension: Some(model_extension::<B::Model>),
    };
    const INSTANCE: InstanceVtable = InstanceVtable {
        struct_size: size_of::<InstanceVtable>(),
        execute: execute::<<B::Model as Model>::Instance>,
        drain: drain::<<B::Model as Model>::Instance>,
        destroy: destroy::<InstanceBox<<B::Model as Model>::Instance>>,
    };
}

/// The probe of a backend type. `name` and `version` end with a zero byte.
pub const fn probe<B: Backend>(name: &'static str, version: &'static str) -> Probe {
    Probe {
        magic: PROBE_MAGIC,
        struct_size: size_of::<Probe>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        panic: if cfg!(panic = "unwind") { PanicStrategy::UNWIND } else { PanicStrategy::ABORT },
        reserved: 0,
        name: name.as_ptr().cast(),
        version: version.as_ptr().cast(),
        sdk: concat!("trireme-sdk ", env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
        layout_tag: LAYOUT_TAG,
        layout: Some(abi::layout_record),
        vtable: BackendVtablePtr(&Tables::<B>::BACKEND),
    }
}

unsafe extern "C" fn info<B: Backend>(out: BackendInfoPtr) {
    let Ok(info) = fence("info", || Ok(B::info())) else { return };
    // SAFETY: the host hands in a struct and says in it how far it reaches.
    unsafe {
        let out = out.0;
        // What is written, and no more: an older host's struct may end behind it.
        if (*out).struct_size < std::mem::offset_of!(BackendInfo, input_kinds) + size_of::<u64>() {
            return;
        }
        (*out).devices = match info.devices {
            Devices::Cpu => 1,
            Devices::Gpu => 2,
            Devices::CpuAndGpu => 3,
        };
        (*out).kind_chooses_device = u32::from(info.kind_chooses_device);
        (*out).max_in_flight = info.max_in_flight;
        (*out).input_kinds = info.input_kinds();
    }
}

/// Puts what `make` makes where the host wants it.
///
/// # Safety
/// `out` may be written to.
unsafe fn give<T>(out: *mut *mut c_void, what: &str, make: impl FnOnce() -> Result<T>) -> Status {
    status(fence(what, make).map(|value| {
        // SAFETY: by this function's contract.
        unsafe { out.write(Box::into_raw(Box::new(value)).cast()) };
    }))
}

unsafe extern "C" fn create<B: Backend>(args: BackendArgsPtr, out: *mut *mut c_void) -> Status {
    // SAFETY: the arguments live until this call returns.
    let (host, settings) = unsafe { (Host::new((*args.0).host), text((*args.0).config_json)) };
    let make = || {
        let settings = serde_json::from_str(settings).unwrap_or(serde_json::Value::Null);
        let backend = B::create(BackendContext { host: host.clone(), settings })?;
        let devices = backend.device_provider().map(Half::leak).transpose()?;
        Ok(BackendBox { backend, host, devices })
    };
    // SAFETY: the host hands in a place for the result.
    unsafe { give(out, "create", make) }
}

unsafe extern "C" fn destroy<T>(value: *mut c_void) {
    // SAFETY: the box that `give` made; the last call for this handle.
    let value = unsafe { Box::from_raw(value.cast::<T>()) };
    let _ = fence("drop", || {
        drop(value);
        Ok(())
    });
}

/// # Safety
/// The arguments live until the call returns.
unsafe fn model_context(args: ModelArgsPtr, host: &Host) -> Result<ModelContext> {
    // SAFETY: by this function's contract.
    unsafe {
        let args = &*args.0;
        Ok(ModelContext {
            host: host.clone(),
            name: text(args.name).to_owned(),
            version: args.version,
            model_dir: PathBuf::from(text(args.model_dir)),
            version_dir: PathBuf::from(text(args.version_dir)),
            config: Config::parse(text(args.config_json))?,
        })
    }
}

unsafe extern "C" fn complete_config<B: Backend>(
    backend: *mut c_void,
    args: ModelArgsPtr,
    out: *mut OwnedText,
) -> Status {
    // SAFETY: the handle is a `BackendBox`; it is used concurrently through shared references only.
    let this = unsafe { &*backend.cast::<BackendBox<B>>() };
    let patch = fence("complete_config", || {
        // SAFETY: the arguments live until this call returns.
        let context = unsafe { model_context(args, &this.host)? };
        this.backend.complete_config(&context)
    });
    status(patch.map(|patch| {
        let patch = patch.map(|patch| patch.to_json()).unwrap_or_default();
        // SAFETY: the host hands in a place for the result.
        unsafe { out.write(owned_text(patch)) };
    }))
}

unsafe extern "C" fn load<B: Backend>(
    backend: *mut c_void,
    args: ModelArgsPtr,
    out: *mut *mut c_void,
) -> Status {
    // SAFETY: the handle is a `BackendBox`; it is used concurrently through shared references only.
    let this = unsafe { &*backend.cast::<BackendBox<B>>() };
    let make = || {
        // SAFETY: the arguments live until this call returns.
        let context = unsafe { model_context(args, &this.host)? };
        let model = this.backend.load(context)?;
        Ok(ModelBox { openai: OpenAiHalf::of(model.openai_endpoints()), model, host: this.host.clone() })
    };
    // SAFETY: the host hands in a place for the result.
    unsafe { give(out, "load", make) }
}

unsafe extern "C" fn create_instance<M: Model>(
    model: *mut c_void,
    args: InstanceArgsPtr,
    out: *mut *mut c_void,
) -> Status {
    // SAFETY: the handle is a `ModelBox`, used through shared references; the arguments live until this call returns.
    let (this, args) = unsafe { (&*model.cast::<ModelBox<M>>(), &*args.0) };
    let make = || {
        // SAFETY: lives until this call returns.
        let name = unsafe { text(args.name) }.to_owned();
        let context = InstanceContext { name, index: args.index, kind: args.kind, device: args.device };
        Ok(InstanceBox { instance: this.model.create_instance(context)?, host: this.host.clone() })
    };
    // SAFETY: the host hands in a place for the result.
    unsafe { give(out, "create_instance", make) }
}

unsafe extern "C" fn execute<I: Instance>(
    instance: *mut c_void,
    items: *const RequestItem,
    count: usize,
) -> Status {
    // SAFETY: the handle is an `InstanceBox`, and instances are never called concurrently.
    let this = unsafe { &mut *instance.cast::<InstanceBox<I>>() };
    // SAFETY: `count` items that are ours from now on.
    let batch: Vec<Request> =
        (0..count).map(|number| unsafe { Request::new(*items.add(number), &this.host) }).collect();
    let outcome = fence("execute", || {
        this.instance.execute(batch);
        Ok(())
    });
    if let Err(error) = &outcome {
        this.host.error(error);
    }
    status(outcome)
}

unsafe extern "C" fn drain<I: Instance>(instance: *mut c_void) {
    // SAFETY: the handle is an `InstanceBox`, and instances are never called concurrently.
    let this = unsafe { &mut *instance.cast::<InstanceBox<I>>() };
    let outcome: Result<()> = fence("drain", || {
        this.instance.drain();
        Ok(())
    });
    if let Err(error) = outcome {
        this.host.error(error);
    }
}

unsafe extern "C" fn model_extension<M: Model>(model: *mut c_void, id: StrView) -> *const c_void {
    // SAFETY: the handle is a `ModelBox`, used through shared references; the text lives until this call returns.
    let (this, id) = unsafe { (&*model.cast::<ModelBox<M>>(), text(id)) };
    match &this.openai {
        Some(half) if id == abi::OPENAI_1 => half.table(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn backend_extension<B: Backend>(backend: *mut c_void, id: StrView) -> *const c_void {
    // SAFETY: the handle is a `BackendBox`, used through shared references; the text lives until this call returns.
    let (this, id) = unsafe { (&*backend.cast::<BackendBox<B>>(), text(id)) };
    match this.devices {
        Some(table) if id == abi::DEVICE_1 => std::ptr::from_ref(table).cast(),
        _ => std::ptr::null(),
    }
}

/// Makes a type that implements [`Backend`](crate::Backend) the backend of this library.
///
/// `export_backend!(Type, name = "name")`: the name is the one in `libtrireme_<name>.so` and in `backend: "name"`.
#[macro_export]
macro_rules! export_backend {
    ($backend:ty, name = $name:literal) => {
        /// The business card of this library; see the ABI.
        #[unsafe(export_name = "trireme_backend_probe")]
        #[used]
        #[allow(non_upper_case_globals)]
        pub static trireme_backend_probe: $crate::export::Probe =
            $crate::export::probe::<$backend>(concat!($name, "\0"), concat!(env!("CARGO_PKG_VERSION"), "\0"));
    };
}
