//! CUDA C++ to machine code, through NVRTC.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::Module;
use crate::error::{CudaError, Result};

/// What the compiler is told beside the architecture.
pub(super) const OPTIONS: [&str; 2] = ["-std=c++17", "--ptxas-options=-v"];

/// The compiler's version, whose library must be there.
pub(super) fn version() -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are valid for writes.
    let status = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    status.result().map_err(|e| CudaError::Driver { call: "nvrtcVersion", error: e.to_string() })?;
    Ok((major, minor))
}

/// Whether the compiler's library can be opened.
pub fn nvrtc_is_there() -> bool {
    // SAFETY: only looks for the library.
    unsafe { sys::is_culib_present() }
}

/// Compiles a module for an architecture (`sm_90a`): machine code, and the assembler's report on registers.
pub fn compile(module: &Module, arch: &str) -> Result<(Vec<u8>, String)> {
    let failed = |log: String| CudaError::Compile { module: module.name, arch: arch.to_owned(), log };
    let driver = |call| move |e: result::NvrtcError| CudaError::Driver { call, error: e.to_string() };
    let source = CString::new(module.source).map_err(|e| failed(e.to_string()))?;
    let name = CString::new(format!("{}.cu", module.name)).map_err(|e| failed(e.to_string()))?;
    let program = result::create_program(&source, Some(&name)).map_err(driver("nvrtcCreateProgram"))?;
    let options = [&format!("--gpu-architecture={arch}"), OPTIONS[0], OPTIONS[1]].map(str::to_owned);
    // SAFETY: the program was made above and is destroyed below, on every way out.
    let compiled = unsafe { result::compile_program(program, &options) };
    // SAFETY: as above.
    let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
    let log: String = log.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect();
    let code = match compiled {
        Err(_) => Err(failed(log.clone())),
        Ok(()) => cubin(program),
    };
    // SAFETY: the program is not used any more.
    let _ = unsafe { result::destroy_program(program) };
    Ok((code?, log))
}

fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>> {
    let error = |e: result::NvrtcError| CudaError::Driver { call: "nvrtcGetCUBIN", error: e.to_string() };
    let mut size = 0;
    // SAFETY: the program has been compiled and `size` is valid for writes.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result().map_err(error)?;
    let mut code = vec![0u8; size];
    // SAFETY: the buffer has the size that was asked for.
    unsafe { sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast::<c_char>()) }.result().map_err(error)?;
    Ok(code)
}

/// Kernels that spill registers, with the bytes they store, from the assembler's report.
pub fn spills(log: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut kernel = "";
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or_default();
        } else if let Some((before, _)) = line.split_once(" bytes spill stores") {
            let bytes = before.rsplit([' ', ',']).next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if bytes > 0 {
                found.push((kernel.to_owned(), bytes));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spills_are_read_from_the_report() {
        let log = "ptxas info    : Compiling entry function 'one' for 'sm_90a'\n\
                   ptxas info    : Function properties for one\n    \
                   16 bytes stack frame, 12 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Compiling entry function 'two' for 'sm_90a'\n    \
                   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        assert_eq!(spills(log), [("one".to_owned(), 12)]);
        assert!(spills("").is_empty());
    }
}
