//! `out[m][n] = x[m][k] · weight[n][k]ᵀ (+ out)`, bf16 in, f32 sums; what is added to is f32.

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::{result, sys};
use serde::{Deserialize, Serialize};

use crate::device::{Buffer, Device, Stream};
use crate::error::{CudaError, Result};

/// Scratch memory for algorithms that split k.
const WORKSPACE: usize = 64 << 20;

/// What becomes of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Stored as bf16.
    Store,
    /// Stored as f32.
    StoreF32,
    /// Added to the f32 that are there.
    Add,
}

/// A product's sizes and addresses on the GPU.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub kind: Kind,
    pub weight: u64,
    pub x: u64,
    pub out: u64,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Elements of a row of `out`.
    pub stride: usize,
}

/// The library with its workspace and the algorithms chosen so far, by (bucket of m, n, k, kind).
pub struct Gemm {
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
    pub(super) chosen: HashMap<(usize, usize, usize, Kind), sys::cublasLtMatmulAlgo_t>,
}

// SAFETY: the handle may be used from any thread, one at a time.
unsafe impl Send for Gemm {}

pub(super) fn blas(call: &'static str) -> impl Fn(result::CublasError) -> CudaError {
    move |e| CudaError::Driver { call, error: format!("{:?}", e.0) }
}

/// How a product is computed.
pub(super) struct Description(sys::cublasLtMatmulDesc_t);

/// A matrix as the library sees it: column-major.
pub(super) struct MatrixLayout(sys::cublasLtMatrixLayout_t);

impl MatrixLayout {
    fn new(ty: sys::cudaDataType, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let layout = result::create_matrix_layout(ty, rows as u64, cols as u64, stride as i64);
        layout.map(Self).map_err(blas("cublasLtMatrixLayoutCreate"))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for MatrixLayout {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// Descriptors of one product.
pub(super) struct Shape {
    desc: Description,
    weight: MatrixLayout,
    x: MatrixLayout,
    out: MatrixLayout,
}

impl Shape {
    /// The library counts column-major: its `D[n, m] = W[k, n]ᵀ · X[k, m]`.
    pub(super) fn new(p: &Product) -> Result<Self> {
        use sys::cudaDataType::{CUDA_R_16BF, CUDA_R_32F};
        let desc = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F)
            .map(Description)
            .map_err(blas("cublasLtMatmulDescCreate"))?;
        // CUBLAS_OP_T of the library's header.
        let transpose = 1i32;
        // SAFETY: the descriptor is alive and the attribute has this type.
        unsafe {
            result::set_matmul_desc_attribute(
                desc.0,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transpose).cast::<c_void>(),
                size_of_val(&transpose),
            )
        }
        .map_err(blas("cublasLtMatmulDescSetAttribute"))?;
        let out_type = if p.kind == Kind::Store { CUDA_R_16BF } else { CUDA_R_32F };
        Ok(Self {
            desc,
            weight: MatrixLayout::new(CUDA_R_16BF, p.k, p.n, p.k)?,
            x: MatrixLayout::new(CUDA_R_16BF, p.k, p.m, p.k)?,
            out: MatrixLayout::new(out_type, p.n, p.m, p.stride)?,
        })
    }
}

impl Gemm {
    pub fn new(device: &Device) -> Result<Self> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoLibrary {
                library: "libcublasLt.so",
                mend: "install the cuBLAS of CUDA 13 and put its folder on LD_LIBRARY_PATH",
            });
        }
        // First what frees itself: the handle is freed by what is made here only.
        let workspace = Buffer::new(device, WORKSPACE)?;
        device.bind()?;
        let handle = result::create_handle().map_err(blas("cublasLtCreate"))?;
        Ok(Self { handle, workspace, chosen: HashMap::new() })
    }

    /// The library's version.
    pub fn version() -> usize {
        // SAFETY: reads a number; [`Self::new`] has found the library.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// Bytes on the GPU beside the matrices.
    pub const fn workspace_bytes() -> usize {
        WORKSPACE
    }

    /// Queues a product.
    ///
    /// # Safety
    /// The addresses must hold matrices of the stated sizes until the product is done.
    pub unsafe fn run(&mut self, stream: &Stream, p: &Product) -> Result<()> {
        let shape = Shape::new(p)?;
        let key = (bucket(p.m), p.n, p.k, p.kind);
        let algo = match self.chosen.get(&key) {
            Some(algo) => *algo,
            None => {
                let algo =
                    self.candidates(&shape, 1)?.first().map(|c| c.algo).ok_or_else(|| no_algorithm(p))?;
                self.chosen.insert(key, algo);
                algo
            }
        };
        // SAFETY: as the caller promises.
        match unsafe { self.run_with(stream, p, &shape, &algo) } {
            // An algorithm of the bucket's largest m may not take every smaller one.
            Err(_) => {
                let algo =
                    self.candidates(&shape, 1)?.first().map(|c| c.algo).ok_or_else(|| no_algorithm(p))?;
                // SAFETY: as the caller promises.
                unsafe { self.run_with(stream, p, &shape, &algo) }
            }
            done => done,
        }
    }

    /// The library's own ranking of algorithms.
    pub(super) fn candidates(
        &self,
        shape: &Shape,
        wanted: usize,
    ) -> Result<Vec<sys::cublasLtMatmulHeuristicResult_t>> {
        let preference = result::create_matmul_pref().map_err(blas("cublasLtMatmulPreferenceCreate"))?;
        // SAFETY: zero is a valid value of this plain structure.
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> =
            vec![unsafe { std::mem::zeroed() }; wanted];
        let mut count = 0;
        let bytes = WORKSPACE;
        // SAFETY: all descriptors are alive, the attribute has this type, and `found` has room for `wanted`.
        let status = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const bytes).cast::<c_void>(),
                size_of_val(&bytes),
            )
            .and_then(|()| {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle,
                    shape.desc.0,
                    shape.weight.0,
                    shape.x.0,
                    shape.out.0,
                    shape.out.0,
                    preference,
                    wanted as i32,
                    found.as_mut_ptr(),
                    &raw mut count,
                )
                .result()
            })
        };
        // SAFETY: made above and not used any more.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        status.map_err(blas("cublasLtMatmulAlgoGetHeuristic"))?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        found.retain(|c| c.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(found)
    }

    /// # Safety
    /// As for [`Self::run`].
    pub(super) unsafe fn run_with(
        &self,
        stream: &Stream,
        p: &Product,
        shape: &Shape,
        algo: &sys::cublasLtMatmulAlgo_t,
    ) -> Result<()> {
        let (alpha, beta) = (1.0f32, if p.kind == Kind::Add { 1.0f32 } else { 0.0 });
        // SAFETY: the descriptors are alive; the rest is the caller's promise.
        unsafe {
            result::matmul(
                self.handle,
                shape.desc.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                p.weight as *const c_void,
                shape.weight.0,
                p.x as *const c_void,
                shape.x.0,
                p.out as *const c_void,
                shape.out.0,
                p.out as *mut c_void,
                shape.out.0,
                algo,
                self.workspace.at(0) as *mut c_void,
                WORKSPACE,
                stream.raw().cast(),
            )
        }
        .map_err(blas("cublasLtMatmul"))
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        // SAFETY: created by `new` and destroyed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

fn no_algorithm(p: &Product) -> CudaError {
    CudaError::Unsupported(format!("cuBLASLt has no algorithm for {} x {} x {}", p.m, p.n, p.k))
}

/// Sizes of m that share an algorithm: steps of 16 to 256, then of 128 to 1024, then of 512.
pub(super) fn bucket(m: usize) -> usize {
    let step = match m {
        0..=256 => 16,
        257..=1024 => 128,
        _ => 512,
    };
    m.div_ceil(step) * step
}
