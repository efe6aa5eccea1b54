//! Which version of ONNX Runtime was loaded.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LAZY, Symbol};
use ort::sys::OrtApiBase;

/// Only a library that is there already is opened (RTLD_NOLOAD of Linux).
const ALREADY_THERE: i32 = 4;

/// The major and the minor version of the library at `path`, which `ort` has loaded from there; `ort` itself keeps it to itself.
/// None if it is not there under this name, as one that was searched for elsewhere: a second one must not be loaded.
pub(crate) fn of(path: &Path) -> Option<(u32, u32)> {
    // SAFETY: the library is there already, so nothing of it runs now.
    let library = unsafe { Library::open(Some(path), RTLD_LAZY | ALREADY_THERE) }.ok()?;
    // SAFETY: the type of this function in ONNX Runtime's header, in every version.
    let base: Symbol<unsafe extern "C" fn() -> *const OrtApiBase> =
        unsafe { library.get(b"OrtGetApiBase") }.ok()?;
    // SAFETY: it takes nothing, and what it gives lives as long as the library.
    let base = unsafe { base().as_ref() }?;
    // SAFETY: a text that lives as long as the library.
    let text = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    parse(text.to_str().ok()?)
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_numbers_count() {
        assert_eq!(parse("1.32.0"), Some((1, 32)));
        assert_eq!(parse("1.26"), Some((1, 26)));
        assert_eq!(parse("1"), None);
        assert_eq!(parse("1.x"), None);
    }
}
