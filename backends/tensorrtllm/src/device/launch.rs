//! Starting kernels.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::{Stream, check};
use crate::error::Result;

/// A kernel of a loaded module. Modules stay loaded as long as the process lives.
#[derive(Clone, Copy)]
pub struct Function {
    pub(crate) raw: sys::CUfunction,
}

// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Function {}
// SAFETY: as above; nothing is changed through it after loading.
unsafe impl Sync for Function {}

/// Blocks, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grid {
    pub blocks: (usize, usize, usize),
    pub threads: usize,
    pub shared: usize,
    /// Whether it may start before the kernel in front of it has ended: it waits itself, see `kernels/common.cuh`.
    pub early: bool,
    /// Blocks along y that form a cluster; 0 for none.
    pub cluster: usize,
}

/// Arguments by address, as the driver takes them.
pub struct KernelArgs<const N: usize>(pub [*mut c_void; N]);

impl Function {
    /// Raises the limit of dynamic shared memory.
    pub fn allow_shared(&self, bytes: usize) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(self.raw, attribute, bytes as i32) })
    }

    /// Bytes of local memory of a thread: more than a few are spilled registers.
    pub fn local_bytes(&self) -> Result<usize> {
        let mut value = 0;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES;
        // SAFETY: `value` is valid for writes and the function is loaded.
        check("cuFuncGetAttribute", unsafe { sys::cuFuncGetAttribute(&raw mut value, attribute, self.raw) })?;
        Ok(value as usize)
    }

    /// Queues the kernel.
    ///
    /// # Safety
    /// `args` must be what the kernel declares, and what they point to on the GPU must live until it has run.
    pub unsafe fn launch<const N: usize>(
        &self,
        stream: &Stream,
        grid: Grid,
        mut args: KernelArgs<N>,
    ) -> Result<()> {
        // SAFETY: zero is a valid value of this plain structure.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        if grid.early {
            attributes[count].id =
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes[count].value.programmaticStreamSerializationAllowed = 1;
            count += 1;
        }
        if grid.cluster > 1 {
            attributes[count].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            attributes[count].value.clusterDim =
                sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: 1, y: grid.cluster as u32, z: 1 };
            count += 1;
        }
        let config = sys::CUlaunchConfig {
            gridDimX: grid.blocks.0 as u32,
            gridDimY: grid.blocks.1 as u32,
            gridDimZ: grid.blocks.2 as u32,
            blockDimX: grid.threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared as u32,
            hStream: stream.raw(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        };
        // SAFETY: configuration and arguments live until the call returns; the rest is the caller's promise.
        check("cuLaunchKernelEx", unsafe {
            sys::cuLaunchKernelEx(&raw const config, self.raw, args.0.as_mut_ptr(), std::ptr::null_mut())
        })
    }
}

/// The addresses of values, for [`Function::launch`]. The values must be of the types that the kernel declares.
#[macro_export]
macro_rules! kernel_args {
    ($($value:expr),* $(,)?) => {
        $crate::device::KernelArgs([$((&raw const $value).cast_mut().cast::<std::ffi::c_void>()),*])
    };
}
