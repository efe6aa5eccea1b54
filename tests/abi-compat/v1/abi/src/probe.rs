use crate::args::{BackendArgsRef, BackendInfoRef, InstanceArgsRef, ModelArgsRef};
use crate::host::HostVtableRef;
use crate::object::{BackendVtableRef, InstanceVtableRef, ModelVtableRef};
use crate::request::RequestVtableRef;
use crate::responder::ResponderVtableRef;
use crate::{BackendVtablePtr, RequestItem, Response};
use abi_stable::StableAbi;
use core::ffi::{c_char, c_void};

/// The symbol that a backend library exports: a static [`Probe`].
pub const PROBE_SYMBOL: &str = "trireme_backend_probe";
/// The first eight bytes of a [`Probe`].
pub const PROBE_MAGIC: [u8; 8] = *b"TRIREME\0";
/// What [`Probe::layout_tag`] must be for [`Probe::layout`] to be asked.
pub const LAYOUT_TAG: [u8; 16] = *b"abi_stable 0.11\0";

/// An open enum: how a panic of the library behaves. One that the host does not know is taken as NONE.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct PanicStrategy(pub u32);

impl PanicStrategy {
    /// The language has none (C).
    pub const NONE: Self = Self(0);
    pub const UNWIND: Self = Self(1);
    /// Refused: a panic would end the server.
    pub const ABORT: Self = Self(2);
}

/// Returns the library's own record of the layout of [`LayoutRoot`].
pub type LayoutFn = unsafe extern "C" fn() -> *const c_void;

/// The business card of a backend library, read before anything of it is called. Its shape never changes; a larger
/// `struct_size` means that more follows.
///
/// ```text
///   0 magic[8]   8 struct_size  12 abi_major  14 abi_minor  16 panic  20 reserved
///  24 name  32 version  40 sdk  48 layout_tag[16]  64 layout  72 vtable
/// ```
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Probe {
    pub magic: [u8; 8],
    pub struct_size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub panic: PanicStrategy,
    /// 0.
    pub reserved: u32,
    /// Name of the backend, `[A-Za-z0-9_-]+`, at most 256 characters, terminated. Equals the one in `libtrireme_<name>.so`.
    pub name: *const c_char,
    /// Version of the backend, for people, at most 256 characters, terminated.
    pub version: *const c_char,
    /// What it was built with, terminated: `"trireme-sdk 0.1.0"`, `"C"`.
    pub sdk: *const c_char,
    /// All zero for a library without a layout record (C): then only sizes are compared. A record of a kind that the host
    /// cannot read is refused, so who is to be loaded by older hosts has this one or none.
    pub layout_tag: [u8; 16],
    /// A [`LayoutFn`].
    pub layout: Option<unsafe extern "C" fn() -> *const c_void>,
    pub vtable: BackendVtablePtr,
}

// SAFETY: a probe is immutable and its pointers name statics of the library, which is never unloaded.
unsafe impl Sync for Probe {}

/// Every type of the wire, so that one layout check sees them all. Never instantiated.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = LayoutRootRef, prefix_fields = LayoutRootPrefix)))]
#[sabi(missing_field(panic))]
pub struct LayoutRoot {
    pub backend: BackendVtableRef,
    pub model: ModelVtableRef,
    pub instance: InstanceVtableRef,
    pub host: HostVtableRef,
    pub request: RequestVtableRef,
    pub responder: ResponderVtableRef,
    pub backend_args: BackendArgsRef,
    pub backend_info: BackendInfoRef,
    pub model_args: ModelArgsRef,
    pub instance_args: InstanceArgsRef,
    pub item: *const RequestItem,
    #[sabi(last_prefix_field)]
    pub response: *const Response,
}

/// The layout record of this build of the types; what a Rust library puts into [`Probe::layout`].
///
/// # Safety
/// None is needed; the signature is that of [`LayoutFn`].
pub unsafe extern "C" fn layout_record() -> *const c_void {
    core::ptr::from_ref(<LayoutRootRef as StableAbi>::LAYOUT).cast()
}
