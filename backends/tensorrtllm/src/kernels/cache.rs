//! Code that NVRTC has made, kept from one load to the next: files of `SHA-256 of the code | code`.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Module;
use super::compile::OPTIONS;
use crate::tuning::put;

/// Bytes of a file before the code.
const SUM: usize = 32;

/// Largest code that is read: a module has less than a megabyte.
const MAX_BYTES: u64 = 64 << 20;

/// Where a module's code for an architecture is kept. Named by all that it depends on, so that another source, compiler or
/// option never finds it.
fn file(folder: &Path, module: &Module, arch: &str, compiler: (i32, i32)) -> PathBuf {
    let mut sum = Sha256::new();
    sum.update(format!("{arch} {compiler:?} {OPTIONS:?} {}\n{}", module.name, module.source));
    let sum: String = sum.finalize().iter().take(10).map(|b| format!("{b:02x}")).collect();
    folder.join(format!("{}-{arch}-{sum}.cubin", module.name))
}

/// The code, if it is there and whole.
pub(super) fn read(folder: &Path, module: &Module, arch: &str, compiler: (i32, i32)) -> Option<Vec<u8>> {
    let file = file(folder, module, arch, compiler);
    if fs::metadata(&file).ok().filter(fs::Metadata::is_file)?.len() > MAX_BYTES {
        return None;
    }
    let bytes = fs::read(file).ok()?;
    let (sum, code) = bytes.split_at_checked(SUM)?;
    (Sha256::digest(code)[..] == *sum).then(|| code.to_vec())
}

/// Keeps it, whole or not at all. Where that cannot be, the next load compiles again.
pub(super) fn write(folder: &Path, module: &Module, arch: &str, compiler: (i32, i32), code: &[u8]) {
    let bytes = [&Sha256::digest(code)[..], code].concat();
    let _ = put(folder, &file(folder, module, arch, compiler), &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Module = Module { name: "one", source: "a" };

    #[test]
    fn code_is_found_by_all_that_made_it_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made");
        assert_eq!(read(&folder, &ONE, "sm_80", (13, 0)), None);
        write(&folder, &ONE, "sm_80", (13, 0), b"code");
        assert_eq!(read(&folder, &ONE, "sm_80", (13, 0)).as_deref(), Some(&b"code"[..]));
        assert_eq!(read(&folder, &ONE, "sm_89", (13, 0)), None);
        assert_eq!(read(&folder, &ONE, "sm_80", (13, 1)), None);
        assert_eq!(read(&folder, &Module { name: "one", source: "b" }, "sm_80", (13, 0)), None);
        let path = file(&folder, &ONE, "sm_80", (13, 0));
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&folder, &ONE, "sm_80", (13, 0)), None, "cut at {cut}");
        }
        // A file in the place of the folder is no error.
        let occupied = dir.path().join("file");
        fs::write(&occupied, "").unwrap();
        write(&occupied, &ONE, "sm_80", (13, 0), b"code");
        assert_eq!(read(&occupied, &ONE, "sm_80", (13, 0)), None);
    }
}
