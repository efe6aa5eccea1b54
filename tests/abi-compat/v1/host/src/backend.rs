//! The three objects of a backend as handles that keep each other alive in the right order.

use std::ffi::c_void;
use std::mem::offset_of;
use std::path::Path;
use std::sync::Arc;

use trireme_abi::{self as abi, InstanceKind, RequestItem};

use crate::check::{self, Party, Rule};
use crate::device::{self, Reader};
use crate::library::Library;
use crate::openai;
use crate::request::Item;
use crate::services::HostServices;
use crate::status::Status;
use crate::vtables::{self, HostContext};
use crate::wire::{take_text, view};

/// A pointer that only a backend understands.
struct Handle(*mut c_void);

// SAFETY: the ABI tags the functions that take a backend or a model as callable from any thread, and those that take an
// instance as never called concurrently, which `Instance` upholds by `&mut`.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// A backend that was created.
pub struct Backend {
    library: Arc<Library>,
    handle: Handle,
    /// Set if it is checked.
    party: Option<&'static Party>,
}

/// What a model is loaded with.
#[derive(Debug, Clone, Copy)]
pub struct ModelArgs<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: i64,
    /// The directory of `config.pbtxt`.
    pub model_dir: &'a Path,
    /// The directory of the version.
    pub version_dir: &'a Path,
    /// The whole configuration, with defaults.
    pub config_json: &'a str,
}

/// A loaded model.
pub struct Model {
    backend: Arc<Backend>,
    handle: Handle,
}

/// What an instance is made with.
#[derive(Debug, Clone, Copy)]
pub struct InstanceArgs<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number within the model version, from 0.
    pub index: u32,
    /// Where it runs.
    pub kind: InstanceKind,
    /// On which device of that kind.
    pub device: i32,
}

/// An instance. It stays on the thread that made it: `items` keeps it from being `Send`, as an author's instance may be
/// bound to its thread.
pub struct Instance {
    model: Arc<Model>,
    handle: Handle,
    /// Where it reads its inputs.
    reader: Reader,
    /// Reused from batch to batch.
    items: Vec<RequestItem>,
    /// Its number for the check of what it holds.
    watched: Option<(&'static Party, u64)>,
}

impl Backend {
    /// Creates the backend of a library.
    ///
    /// # Errors
    /// What the backend says.
    pub fn create(
        library: Arc<Library>,
        services: &'static dyn HostServices,
        config_json: &str,
    ) -> Result<Arc<Self>, Status> {
        // Lives as long as the library: until the process ends.
        let party = check::is_on().then(|| Party::of(library.name(), services));
        let context: &'static HostContext = Box::leak(Box::new(HostContext { services, party }));
        let host = if party.is_some() { check::host_ref(context) } else { vtables::host_ref(context) };
        let args = abi::BackendArgs {
            struct_size: size_of::<abi::BackendArgs>(),
            host,
            config_json: view(config_json),
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the arguments live until the call returns, the host until the process ends.
        let made =
            unsafe { Status::check(((*library.backend.0).create)(abi::BackendArgsPtr(&args), &mut handle)) };
        look_at_failure(&made, !handle.is_null(), party, "BackendVtable.create");
        made?;
        let backend = Arc::new(Self { library, handle: Handle(handle), party });
        let table = backend.extension(abi::DEVICE_1).cast();
        // SAFETY: what the backend gave for this id.
        unsafe { device::register(table, backend.library.name(), services) };
        Ok(backend)
    }

    /// The library that it came from.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// What the backend proposes for a configuration: a JSON object, or none.
    ///
    /// # Errors
    /// What the backend says.
    pub fn complete_config(&self, args: &ModelArgs<'_>) -> Result<Option<String>, Status> {
        let none =
            abi::OwnedText { data: std::ptr::null(), len: 0, owner: std::ptr::null_mut(), release: None };
        let mut text = none;
        with_model_args(args, |wire| {
            // SAFETY: the handle is this backend's; the arguments live until the call returns.
            unsafe {
                Status::check(((*self.library.backend.0).complete_config)(self.handle.0, wire, &mut text))
            }
        })?;
        // SAFETY: filled by the backend, or still empty.
        let text = unsafe { take_text(text) };
        Ok((!text.is_empty()).then_some(text))
    }

    /// Loads a model.
    ///
    /// # Errors
    /// What the backend says.
    pub fn load(self: &Arc<Self>, args: &ModelArgs<'_>) -> Result<Arc<Model>, Status> {
        let mut handle = std::ptr::null_mut();
        let made = with_model_args(args, |wire| {
            // SAFETY: the handle is this backend's; the arguments live until the call returns.
            unsafe { Status::check(((*self.library.backend.0).load)(self.handle.0, wire, &mut handle)) }
        });
        look_at_failure(&made, !handle.is_null(), self.party, "BackendVtable.load");
        made?;
        Ok(Arc::new(Model { backend: Arc::clone(self), handle: Handle(handle) }))
    }

    /// The backend's half of an extension, or null.
    pub fn extension(&self, id: &str) -> *const c_void {
        let table = self.library.backend.0;
        // SAFETY: the table lives until the process ends, and `extension` is read only if the table reaches it.
        unsafe {
            let reaches = end_of_pointer(offset_of!(abi::BackendVtable, extension));
            let extension = if (*table).struct_size >= reaches { (*table).extension } else { None };
            extension.map_or(std::ptr::null(), |extension| extension(self.handle.0, view(id)))
        }
    }
}

/// How large a table is that reaches the function at an offset. Not its size here: later versions have more behind it.
const fn end_of_pointer(offset: usize) -> usize {
    offset + size_of::<*const c_void>()
}

/// A call that fails has written no result.
fn look_at_failure(made: &Result<(), Status>, written: bool, party: Option<&'static Party>, call: &str) {
    if let (Err(_), true, Some(party)) = (made, written, party) {
        check::report(Rule::WrittenOnError, party, format!("{call} failed and gave a handle all the same"));
    }
}

fn with_model_args<R>(args: &ModelArgs<'_>, call: impl FnOnce(abi::ModelArgsPtr) -> R) -> R {
    let model_dir = args.model_dir.to_string_lossy();
    let version_dir = args.version_dir.to_string_lossy();
    let wire = abi::ModelArgs {
        struct_size: size_of::<abi::ModelArgs>(),
        name: view(args.name),
        version: args.version,
        model_dir: view(&model_dir),
        version_dir: view(&version_dir),
        config_json: view(args.config_json),
    };
    call(abi::ModelArgsPtr(&wire))
}

impl Model {
    /// Makes an instance; called on the thread that will use it.
    ///
    /// # Errors
    /// What the backend says.
    pub fn create_instance(self: &Arc<Self>, args: &InstanceArgs<'_>) -> Result<Instance, Status> {
        let wire = abi::InstanceArgs {
            struct_size: size_of::<abi::InstanceArgs>(),
            name: view(args.name),
            index: args.index,
            kind: args.kind,
            device: args.device,
            reserved: 0,
        };
        let mut handle = std::ptr::null_mut();
        let table = self.backend.library.model.0;
        // SAFETY: the handle is this model's; the arguments live until the call returns.
        let made = unsafe {
            Status::check(((*table).create_instance)(self.handle.0, abi::InstanceArgsPtr(&wire), &mut handle))
        };
        let party = self.backend.party;
        look_at_failure(&made, !handle.is_null(), party, "ModelVtable.create_instance");
        made?;
        let watched = party.map(|party| (party, check::next_instance()));
        let (model, handle) = (Arc::clone(self), Handle(handle));
        let reads_gpu = self.backend.library.info().reads_gpu;
        let reader = Reader::of(reads_gpu, args.kind, args.device);
        Ok(Instance { model, handle, reader, items: Vec::new(), watched })
    }

    /// The endpoints of OpenAI's API that the model says it answers; none if it has no such half.
    ///
    /// # Errors
    /// What the model says is malformed.
    pub fn openai_endpoints(&self) -> Result<Vec<String>, Status> {
        let half = self.extension(abi::OPENAI_1).cast::<abi::OpenAiModel>();
        // SAFETY: what the model gave for this id, valid as long as the model.
        unsafe { openai::endpoints(half) }
    }

    /// The model's half of an extension, or null.
    fn extension(&self, id: &str) -> *const c_void {
        let table = self.backend.library.model.0;
        // SAFETY: the table lives until the process ends, and `extension` is read only if the table reaches it.
        unsafe {
            let reaches = end_of_pointer(offset_of!(abi::ModelVtable, extension));
            let extension = if (*table).struct_size >= reaches { (*table).extension } else { None };
            extension.map_or(std::ptr::null(), |extension| extension(self.handle.0, view(id)))
        }
    }
}

impl Instance {
    /// Runs a batch; takes all of `batch`. The answers go through the responders, now or later.
    ///
    /// # Errors
    /// The instance cannot go on and is to be replaced. The requests are answered all the same.
    pub fn execute(&mut self, batch: &mut Vec<Item>) -> Result<(), Status> {
        self.items.clear();
        self.bring_inputs(batch);
        match self.watched {
            None => self.items.extend(batch.drain(..).map(vtables::into_wire)),
            Some((party, instance)) => {
                self.items.extend(batch.drain(..).map(|item| check::into_wire(item, party, instance)));
            }
        }
        if self.items.is_empty() {
            return Ok(());
        }
        let table = self.model.backend.library.instance.0;
        // SAFETY: the handle is this instance's, `&mut` keeps others away, and the items are handed over.
        let status = unsafe { ((*table).execute)(self.handle.0, self.items.as_ptr(), self.items.len()) };
        self.items.clear();
        // SAFETY: returned by the call above.
        unsafe { Status::check(status) }
    }

    /// Inputs on a device go where the instance reads them; a request for which that fails is answered so.
    fn bring_inputs(&self, batch: &mut Vec<Item>) {
        let on_device = |item: &Item| item.request.inputs.iter().any(|input| input.device.is_some());
        if !batch.iter().any(on_device) {
            return;
        }
        for mut item in std::mem::take(batch) {
            match self.reader.bring(&mut item.request) {
                Ok(()) => batch.push(item),
                Err(status) => item.responder.fail(status),
            }
        }
    }

    /// Returns when the instance holds no request any more.
    pub fn drain(&mut self) {
        // SAFETY: as in `execute`.
        unsafe { ((*self.model.backend.library.instance.0).drain)(self.handle.0) };
        self.look_at_what_is_held(Rule::DrainLeftRequests, "drain");
    }

    fn look_at_what_is_held(&self, rule: Rule, call: &str) {
        let Some((party, instance)) = self.watched else { return };
        let held = check::held_by(instance);
        if held > 0 {
            let what = format!("InstanceVtable.{call} returned with {held} requests and responders held");
            check::report(rule, party, what);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the last call for this handle.
        unsafe { ((*self.model.backend.library.instance.0).destroy)(self.handle.0) };
        self.look_at_what_is_held(Rule::HeldAfterDestroy, "destroy");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: instances hold the model, so there is none left; the last call for this handle.
        unsafe { ((*self.backend.library.model.0).unload)(self.handle.0) };
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: models hold the backend, so there is none left; the last call for this handle.
        unsafe { ((*self.library.backend.0).destroy)(self.handle.0) };
    }
}
