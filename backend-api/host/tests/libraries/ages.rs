//! One backend, built with interfaces that have a function fewer, a function more, or a field of another type.

use std::path::Path;

use trireme_host::abi::DType;
use trireme_host::{Library, LoadOptions};

use crate::support::{Edit, compat_library, input, instance, request, run};

const LAST_FUNCTION: &str = r#"
    /// `[any-thread]` The backend's half of the extension `id` ("name/REV"), or null; valid until the process ends.
    pub extension: Option<unsafe extern "C" fn(backend: *mut c_void, id: StrView) -> *const c_void>,
"#;
const EXPORTED: &str = "load: load::<B>,\n        extension: Some(backend_extension::<B>),";

fn doubles(library: &Path) {
    let info = Library::open(library, "compat", &LoadOptions::default()).unwrap().info();
    assert_eq!(info.max_in_flight, 3, "what the backend says of itself");
    let mut instance = instance(library, "compat", "{}");
    let numbers: Vec<u8> = [1i32, -2, 3, i32::MAX / 2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let doubled: Vec<u8> = [2i32, -4, 6, i32::MAX - 1].iter().flat_map(|x| x.to_le_bytes()).collect();
    let answers =
        run(&mut instance, vec![request("", &["X"], vec![input(0, DType::INT32, &[2, 2], &[&numbers])])]);
    let [response]: [_; 1] = answers[0].take().try_into().unwrap();
    assert_eq!(response.error, None);
    let [output] = response.outputs.as_slice() else { panic!("{response:?}") };
    assert_eq!((output.name.as_str(), output.shape.as_slice()), ("Y", &[2i64, 2][..]));
    assert_eq!(output.data.as_ref(), doubled);
    instance.drain();
}

#[test]
fn a_backend_with_one_function_fewer_is_served() {
    let edits: [Edit<'_>; 2] =
        [("abi/src/object.rs", LAST_FUNCTION, "\n"), ("sdk/src/export.rs", EXPORTED, "load: load::<B>,")];
    doubles(&compat_library("fewer", &edits));
}

#[test]
fn a_backend_with_one_function_more_is_served() {
    let grown = format!(
        "{LAST_FUNCTION}    pub measure: Option<unsafe extern \"C\" fn(backend: *mut c_void, what: StrView) -> u64>,\n"
    );
    let exported = format!(
        "{EXPORTED}\n        measure: {{\n            unsafe extern \"C\" fn measure(_: *mut c_void, _: StrView) -> u64 {{\n                7\n            }}\n            Some(measure)\n        }},"
    );
    let edits: [Edit<'_>; 2] =
        [("abi/src/object.rs", LAST_FUNCTION, &grown), ("sdk/src/export.rs", EXPORTED, &exported)];
    doubles(&compat_library("more", &edits));
}

/// A later SDK knows more fields of what the host hands in than this host has: it asks for those that it needs.
#[test]
fn a_backend_with_longer_arguments_is_served() {
    let info = "    pub input_kinds: u64,\n";
    let instance = "    pub reserved: u32,\n}\n\n/// A pointer to [`BackendArgs`]";
    let edits: [Edit<'_>; 2] = [
        ("abi/src/args.rs", info, &format!("{info}    pub more: u64,\n")),
        ("abi/src/args.rs", instance, &instance.replacen(",\n", ",\n    pub more: u64,\n", 1)),
    ];
    doubles(&compat_library("longer", &edits));
}

#[test]
fn a_backend_with_a_function_in_the_middle_is_refused() {
    let send = "    /// Sends a response. The buffers";
    let planted =
        format!("    pub planted: unsafe extern \"C\" fn(responder: *mut ResponderHandle),\n{send}");
    let library = compat_library("middle", &[("abi/src/responder.rs", send, &planted)]);
    let error = Library::open(&library, "compat", &LoadOptions::default()).err().unwrap().to_string();
    assert!(error.contains(" was built against another ABI: ") && !error.contains('\n'), "{error}");
    assert!(error.ends_with("responder.0: expected send, found planted"), "{error}");
}

#[test]
fn a_backend_with_another_field_type_is_refused_in_one_line() {
    let library = compat_library(
        "changed",
        &[("abi/src/request.rs", "pub buffer_count: u32,", "pub buffer_count: i32,")],
    );
    let error = Library::open(&library, "compat", &LoadOptions::default()).err().unwrap().to_string();
    let (before, difference) = error.split_once(" was built against another ABI: ").unwrap();
    assert!(before.ends_with("libtrireme_changed.so'"), "{error}");
    assert!(difference.contains("buffer_count") && !error.contains('\n'), "{error}");
    assert!(difference.ends_with("expected u32, found i32"), "{error}");
}
