//! How Hopper's copy engine sees a matrix in the GPU's memory.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::check;
use crate::error::Result;

/// Passed to kernels by value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// A matrix of bf16, `rows` of `width` elements one behind the other, that is copied in boxes of 64 elements by
    /// `box_rows`. In shared memory the 16-byte pieces of a box's rows are exchanged (128-byte swizzle); what lies
    /// outside of the matrix becomes zeros.
    ///
    /// # Errors
    /// The driver's, if it cannot describe the matrix.
    pub fn of_rows(address: u64, width: usize, rows: usize, box_rows: usize) -> Result<Self> {
        // SAFETY: zero is a valid value of this plain structure.
        let mut map: sys::CUtensorMap = unsafe { std::mem::zeroed() };
        let (sizes, strides) = ([width as u64, rows as u64], [width as u64 * 2]);
        let (boxes, steps) = ([64u32, box_rows as u32], [1u32, 1]);
        // SAFETY: all pointers are valid for what the call reads and writes; the address is only written down.
        check("cuTensorMapEncodeTiled", unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })?;
        Ok(Self(map))
    }
}
