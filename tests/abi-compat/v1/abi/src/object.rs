use crate::{
    BackendArgsPtr, BackendInfoPtr, InstanceArgsPtr, ModelArgsPtr, OwnedText, RequestItem, Status, StrView,
};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The functions of a backend library.
///
/// In this and all other tables `last_prefix_field` marks the last function that every version of a major has; it never
/// moves and is not null. What stands behind it may be left out: it is looked at only where `struct_size` covers it and it
/// is not null.
///
/// `backend`, `model` and `instance` are pointers that only the backend understands. An object outlives those made
/// from it: instances are destroyed before their model, models before their backend.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendVtableRef, prefix_fields = BackendVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct BackendVtable {
    pub struct_size: usize,
    pub model: ModelVtablePtr,
    pub instance: InstanceVtablePtr,
    /// `[any-thread]` Fills `info`, as far as `info.struct_size` reaches. Allowed before `create`, and more than once.
    pub info: unsafe extern "C" fn(info: BackendInfoPtr),
    /// `[load-thread]` Once after the library is loaded. On an error `out` is not written; so for all calls that make
    /// something.
    pub create: unsafe extern "C" fn(args: BackendArgsPtr, out: *mut *mut c_void) -> Status,
    /// `[any-thread]` Once, when the server ends and all models are gone. The library itself is never unloaded. A server
    /// that has to end at once does not call it.
    pub destroy: unsafe extern "C" fn(backend: *mut c_void),
    /// `[load-thread]` Proposes what the configuration leaves open: `out` is a JSON object that may hold
    /// `max_batch_size`, `input`, `output`, `dynamic_batching`, `model_transaction_policy`, `instance_group` and `extends`
    /// (true: the tensors are added to those of the configuration), or an empty text. Anything else in it fails the load.
    /// May run concurrently for different models.
    pub complete_config:
        unsafe extern "C" fn(backend: *mut c_void, args: ModelArgsPtr, out: *mut OwnedText) -> Status,
    /// `[load-thread]` Loads a model; may run concurrently for different models.
    #[sabi(last_prefix_field)]
    pub load: unsafe extern "C" fn(backend: *mut c_void, args: ModelArgsPtr, out: *mut *mut c_void) -> Status,
    /// `[any-thread]` The backend's half of the extension `id` ("name/REV"), or null; valid until the process ends.
    pub extension: Option<unsafe extern "C" fn(backend: *mut c_void, id: StrView) -> *const c_void>,
}

/// The functions of a loaded model.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModelVtableRef, prefix_fields = ModelVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct ModelVtable {
    pub struct_size: usize,
    /// `[instance-thread of the new one]` Instances of a model may be made concurrently.
    pub create_instance:
        unsafe extern "C" fn(model: *mut c_void, args: InstanceArgsPtr, out: *mut *mut c_void) -> Status,
    /// `[any-thread]` Once, after all instances are destroyed; usually on the thread of the last one.
    #[sabi(last_prefix_field)]
    pub unload: unsafe extern "C" fn(model: *mut c_void),
    /// `[any-thread]` As `BackendVtable::extension`; valid until the model is unloaded.
    pub extension: Option<unsafe extern "C" fn(model: *mut c_void, id: StrView) -> *const c_void>,
}

/// The functions of an instance. Never called concurrently for one instance.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = InstanceVtableRef, prefix_fields = InstanceVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct InstanceVtable {
    pub struct_size: usize,
    /// `[instance-thread]` Runs a batch of `count` requests, 1 or more. Takes all of them, also when something goes wrong:
    /// each is answered through its responder. May return before the answers are sent. `items` itself is the host's.
    /// The result says whether the instance can go on: anything but OK makes the host destroy and replace it.
    pub execute:
        unsafe extern "C" fn(instance: *mut c_void, items: *const RequestItem, count: usize) -> Status,
    /// `[instance-thread]` Returns when the instance holds no request any more. Batches may follow.
    pub drain: unsafe extern "C" fn(instance: *mut c_void),
    /// `[instance-thread]` The last call. After `drain`, unless `execute` failed or the load was given up; requests that
    /// it still holds are to be released.
    #[sabi(last_prefix_field)]
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

/// A pointer to a [`BackendVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct BackendVtablePtr(#[sabi(unsafe_opaque_field)] pub *const BackendVtable);

/// A pointer to a [`ModelVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct ModelVtablePtr(#[sabi(unsafe_opaque_field)] pub *const ModelVtable);

/// A pointer to an [`InstanceVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct InstanceVtablePtr(#[sabi(unsafe_opaque_field)] pub *const InstanceVtable);

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for BackendVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for BackendVtablePtr {}

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for ModelVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for ModelVtablePtr {}

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for InstanceVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for InstanceVtablePtr {}
