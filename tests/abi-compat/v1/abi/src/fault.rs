//! The extension `fault/1`: a backend says that a device is lost to this process.
//!
//! Some errors of a device end more than a request: after an illegal access or an uncorrectable memory error, every
//! further call of this process on that device fails, and only a new process can use it again. Who sees such an error says
//! so once, before it answers the requests that it takes with it. The host is then not ready any more, finishes what can
//! be finished, and ends with an exit code of its own, so that whatever runs it starts it anew.

use crate::StrView;
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The id for [`HostVtable::extension`](crate::HostVtable::extension), which gives a pointer to a [`FaultVtable`].
pub const FAULT_1: &str = "fault/1";

/// The host's half of `fault/1`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct FaultVtable {
    pub struct_size: usize,
    /// `[any-thread]` A device is lost. `context` is `HostRef::context`; `message` is lent and says which device and what it
    /// said; 4096 characters of it are kept. Returns at once; the first message of a process counts.
    pub device_lost: unsafe extern "C" fn(context: *const c_void, message: StrView),
}
