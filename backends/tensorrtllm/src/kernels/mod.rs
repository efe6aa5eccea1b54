//! The kernels: their sources, how they become code for a GPU, and a table of what the host calls.

mod cache;
mod compile;
mod embedded;
mod sources;
mod stream_args;
mod streams;
mod tiles;

use std::ffi::CString;
use std::path::Path;

use cudarc::driver::sys;
use sha2::{Digest, Sha256};

pub use compile::{compile, nvrtc_is_there, spills};
pub use sources::{MODULES, Module, is_hot};
pub use stream_args::{RopeArgs, StreamArgs};
pub use streams::{Form, Layout, Place, SQUARES, StreamKind, StreamSize, Streams, can_share, holds_heads};
pub use tiles::{TILE_ROWS, TILE_THREADS, TilePlan, TileSize, Tiles, TilesArgs};

use crate::device::{Device, Function, check};
use crate::error::{CudaError, Result};

/// Head sizes that the attention kernels are made for.
pub const HEAD_DIMS: [usize; 5] = [64, 80, 96, 128, 256];

/// Those that have a prefill kernel of Hopper's own.
const SM90_HEAD_DIMS: [usize; 2] = [64, 128];

/// Defines the table and the way it is filled: a field for each kernel that is called by its own name.
macro_rules! kernel_table {
    ($($module:literal: $($name:ident),+;)+) => {
        /// Every kernel that the host calls, loaded.
        pub struct Kernels {
            $($(pub $name: Function,)+)+
            /// SHA-256 of the machine code that was loaded, in hexadecimal.
            pub hash: String,
            pub attention_decode: Function,
            /// The same with the copy engine, where there is one.
            pub attention_ring: Option<Function>,
            pub few: FewRows,
            /// Products of up to 128 rows, where there is a copy engine.
            pub streams: Option<Streams>,
            /// Gate and up of more rows, likewise.
            pub tiles: Option<Tiles>,
            pub attention_prefill: Function,
            /// On Hopper's own products, where there is such a kernel.
            pub attention_prefill_sm90: Option<Function>,
        }

        impl Kernels {
            /// Loads all kernels for a model with this head size. Code that has to be compiled is kept in the folder `cache`.
            pub fn load(device: &Device, head_dim: usize, cache: Option<&Path>) -> Result<Self> {
                device.bind()?;
                check_shared(device, head_dim)?;
                let modules = load_modules(device, cache)?;
                let of = |module: &str, name: &str| modules.function(module, name);
                let hopper = device.capability == (9, 0) && SM90_HEAD_DIMS.contains(&head_dim);
                let name = format!("attention_prefill_sm90_{head_dim}");
                let sm90 = hopper.then(|| of("attention_prefill_sm90", &name)).transpose()?;
                if let Some(function) = &sm90 {
                    function.allow_shared(prefill_sm90_shared_bytes(head_dim))?;
                }
                let copies = device.capability == (9, 0);
                let streams = copies.then(|| Streams::load(&of)).transpose()?;
                let tiles = copies.then(|| Tiles::load(&of)).transpose()?;
                let ring = copies.then(|| of("attention_decode", &format!("attention_ring_{head_dim}")));
                let ring = ring.transpose()?;
                if let Some(function) = &ring {
                    function.allow_shared(ring_shared_bytes(head_dim))?;
                }
                let loaded = Self {
                    hash: modules.hash.clone(),
                    streams,
                    tiles,
                    attention_ring: ring,
                    few: FewRows::load(&of)?,
                    $($($name: of($module, stringify!($name))?,)+)+
                    attention_decode: of("attention_decode", &format!("attention_decode_{head_dim}"))?,
                    attention_prefill: of("attention_prefill", &format!("attention_prefill_{head_dim}"))?,
                    attention_prefill_sm90: sm90,
                };
                loaded.attention_prefill.allow_shared(prefill_shared_bytes(head_dim))?;
                Ok(loaded)
            }
        }
    };
}

kernel_table! {
    "rows": embed, rms_norm, gather, silu_mul, rope_write, fill_dummy;
    "state": apply_changes, clear_slots;
    "sample": scan_logits, choose, count_step;
}

/// The kernels of products of few rows: for up to 8, and for up to 16.
#[derive(Clone, Copy)]
pub struct FewRows {
    pub norm: [Function; 2],
    pub norm_rope: [Function; 2],
    pub norm_f32: [Function; 2],
    pub norm_silu_mul: [Function; 2],
    pub add: [Function; 2],
}

impl FewRows {
    fn load(of: &impl Fn(&str, &str) -> Result<Function>) -> Result<Self> {
        let pair = |what: &str| -> Result<[Function; 2]> {
            Ok([of("linear", &format!("skinny8_{what}"))?, of("linear", &format!("skinny16_{what}"))?])
        };
        Ok(Self {
            norm: pair("norm")?,
            norm_rope: pair("norm_rope")?,
            norm_f32: pair("norm_f32")?,
            norm_silu_mul: pair("norm_silu_mul")?,
            add: pair("add")?,
        })
    }
}

/// Threads of a block of products of few rows: those that add to the residual stream have twice as many.
pub fn few_rows_threads(add: bool) -> usize {
    if add { 512 } else { 256 }
}

/// Shared memory of a block of prefill attention: two tiles of keys and of values.
pub fn prefill_shared_bytes(head_dim: usize) -> usize {
    4 * 64 * head_dim.div_ceil(64) * 128
}

/// Tiles of 16 positions that a warp of decode attention has on their way.
fn ring_depth(head_dim: usize) -> usize {
    match head_dim {
        0..=64 => 6,
        65..=96 => 4,
        _ => 3,
    }
}

/// Shared memory of a block of decode attention with the copy engine: four warps' tiles of keys and values.
pub fn ring_shared_bytes(head_dim: usize) -> usize {
    4 * ring_depth(head_dim) * 2 * 16 * head_dim * 2
}

/// Blocks of it that a multiprocessor has at a time.
pub fn ring_blocks(head_dim: usize) -> usize {
    if head_dim > 128 { 1 } else { 2 }
}

/// The same of Hopper's kernel: the queries, two tiles of keys and of values, 128 rows each.
pub fn prefill_sm90_shared_bytes(head_dim: usize) -> usize {
    5 * 128 * head_dim * 2
}

/// The kernel of prompts that every GPU has needs most.
fn check_shared(device: &Device, head_dim: usize) -> Result<()> {
    let (needed, there) = (prefill_shared_bytes(head_dim), device.shared_bytes()?);
    if needed > there {
        return Err(CudaError::Unsupported(format!(
            "heads of {head_dim} need {} kB of shared memory a block, {} has {}",
            needed >> 10,
            device.name,
            there >> 10
        )));
    }
    Ok(())
}

struct Loaded {
    modules: Vec<(&'static str, sys::CUmodule)>,
    hash: String,
}

/// Compiled code that a GPU runs which has none of its own: within a major version a later chip runs an earlier one's.
fn runs_code_of(arch: &str) -> Option<&'static str> {
    matches!(arch, "sm_86" | "sm_87").then_some("sm_80")
}

/// Takes the embedded code for this GPU if there is any, else compiles all modules at once; without a compiler, embedded
/// code that the GPU runs as well.
fn load_modules(device: &Device, cache: Option<&Path>) -> Result<Loaded> {
    let arch = device.arch();
    let other = || runs_code_of(&arch).filter(|_| !nvrtc_is_there()).and_then(embedded::for_arch);
    let images: Vec<(&'static str, Vec<u8>)> = match embedded::for_arch(&arch).or_else(other) {
        Some(images) => images.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect(),
        None => compile_all(&arch, cache)?,
    };
    let (mut modules, mut hash) = (Vec::new(), Sha256::new());
    for (name, image) in images {
        hash.update(&image);
        let mut module = std::ptr::null_mut();
        // SAFETY: `module` is valid for writes and the image is a whole ELF file that outlives the call.
        check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) })?;
        modules.push((name, module));
    }
    let hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Loaded { modules, hash })
}

fn compile_all(arch: &str, folder: Option<&Path>) -> Result<Vec<(&'static str, Vec<u8>)>> {
    if !nvrtc_is_there() {
        return Err(CudaError::NoLibrary {
            library: "libnvrtc.so",
            mend: "install CUDA's NVRTC, or take a build with compiled kernels (`cargo xtask kernels`)",
        });
    }
    let compiler = compile::version()?;
    let code = move |module: &Module| -> Result<Vec<u8>> {
        if let Some(code) = folder.and_then(|folder| cache::read(folder, module, arch, compiler)) {
            return Ok(code);
        }
        let (code, _) = compile(module, arch)?;
        if let Some(folder) = folder {
            cache::write(folder, module, arch, compiler, &code);
        }
        Ok(code)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> =
            MODULES.iter().map(|module| scope.spawn(move || Ok((module.name, code(module)?)))).collect();
        running
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(CudaError::Driver { call: "nvrtc", error: "the compiling thread panicked".into() })
                })
            })
            .collect()
    })
}

impl Loaded {
    fn function(&self, module: &str, name: &str) -> Result<Function> {
        let missing = || CudaError::Unsupported(format!("there is no kernel '{name}'"));
        let (_, module) = self.modules.iter().find(|(n, _)| *n == module).ok_or_else(missing)?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is valid for writes, the module is loaded and the name ends with a zero.
        let status = unsafe { sys::cuModuleGetFunction(&raw mut raw, *module, c_name.as_ptr()) };
        if status == sys::CUresult::CUDA_ERROR_NOT_FOUND {
            return Err(missing());
        }
        check("cuModuleGetFunction", status)?;
        Ok(Function { raw })
    }
}
