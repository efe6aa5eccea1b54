use crate::{HostRef, StrView};
use abi_stable::StableAbi;

/// What a backend is made with.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendArgsRef, prefix_fields = BackendArgsPrefix)))]
#[sabi(missing_field(panic))]
pub struct BackendArgs {
    pub struct_size: usize,
    pub host: HostRef,
    /// The settings of this backend, a JSON object `{"cmdline": {"name": "value", …}}`: those of the command line, those for
    /// all backends among them, and what the server adds (`backend-directory`, …). All values are strings. Lives until
    /// `create` returns; `host` lives until the process ends.
    #[sabi(last_prefix_field)]
    pub config_json: StrView,
}

/// What a backend says of itself; filled by `BackendVtable::info`. Its name and version are in the
/// [`Probe`](crate::Probe). The host has put the defaults there before the call; a field that is not written keeps them.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendInfoRef, prefix_fields = BackendInfoPrefix)))]
#[sabi(missing_field(panic))]
pub struct BackendInfo {
    /// Set by the host before the call: what it can read.
    pub struct_size: usize,
    /// Bit set: 1 = runs on a CPU (default), 2 = runs on a GPU. `KIND_GPU` is refused without the second. Other bits mean
    /// nothing to a host that does not know them.
    pub devices: u32,
    /// Whether `instance_group.kind` chooses the device (not 0, default) or the backend decides by itself (0).
    pub kind_chooses_device: u32,
    /// How many requests an instance may hold unanswered after `execute` has returned. 0: the instance is busy until
    /// `execute` returns, and then free, whatever it still holds (default).
    pub max_in_flight: u32,
    /// 0.
    pub reserved: u32,
    /// Bit set of the kinds of memory that inputs may be in: `1 << kind` of each `MemoryKind`; CPU is always among them
    /// (default: only CPU). With GPU, an instance of `KIND_GPU` may be given inputs in memory of its own device; what is
    /// elsewhere is copied before it gets the request. `RequestVtable::gather` brings any input where it is wanted. Other
    /// bits mean nothing to a host that does not know them.
    #[sabi(last_prefix_field)]
    pub input_kinds: u64,
}

/// What a model is loaded with. The texts live until the call returns.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModelArgsRef, prefix_fields = ModelArgsPrefix)))]
#[sabi(missing_field(panic))]
pub struct ModelArgs {
    pub struct_size: usize,
    pub name: StrView,
    /// Above 0.
    pub version: i64,
    /// The model's directory (that of `config.pbtxt`).
    pub model_dir: StrView,
    /// The version's directory.
    pub version_dir: StrView,
    /// The whole configuration as JSON, with protobuf's field names, defaults printed.
    #[sabi(last_prefix_field)]
    pub config_json: StrView,
}

/// An open enum: where an instance runs. A backend that does not know the kind refuses the instance (UNSUPPORTED).
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstanceKind(pub u32);

impl InstanceKind {
    pub const CPU: Self = Self(1);
    pub const GPU: Self = Self(2);
    /// The backend decides.
    pub const MODEL: Self = Self(3);
}

/// What an instance is made with. The texts live until the call returns.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = InstanceArgsRef, prefix_fields = InstanceArgsPrefix)))]
#[sabi(missing_field(panic))]
pub struct InstanceArgs {
    pub struct_size: usize,
    /// `<group>_<number in the group>`.
    pub name: StrView,
    /// Number of the instance within its model version, from 0.
    pub index: u32,
    pub kind: InstanceKind,
    /// Number of the GPU for [`InstanceKind::GPU`], otherwise 0.
    pub device: i32,
    /// 0.
    #[sabi(last_prefix_field)]
    pub reserved: u32,
}

/// A pointer to [`BackendArgs`], valid for the call.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct BackendArgsPtr(#[sabi(unsafe_opaque_field)] pub *const BackendArgs);

/// A pointer to [`BackendInfo`], valid for the call.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct BackendInfoPtr(#[sabi(unsafe_opaque_field)] pub *mut BackendInfo);

/// A pointer to [`ModelArgs`], valid for the call.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct ModelArgsPtr(#[sabi(unsafe_opaque_field)] pub *const ModelArgs);

/// A pointer to [`InstanceArgs`], valid for the call.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct InstanceArgsPtr(#[sabi(unsafe_opaque_field)] pub *const InstanceArgs);
