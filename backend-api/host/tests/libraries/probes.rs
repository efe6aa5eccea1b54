//! What is not a backend, or not one that this server can use, is refused in one sentence that says why.

use std::fs;
use std::path::Path;

use trireme_host::{Backend, Library, LoadOptions, ModelArgs};

use crate::support::{SERVICES, c_library, scratch};

/// Loads `probe.c` built with definitions, as the backend `probe`.
fn open(name: &str, definitions: &[(&str, &str)]) -> Result<String, String> {
    let path = scratch("probes").join(format!("libtrireme_{name}.so"));
    c_library("probes/probe.c", &path, definitions);
    let library =
        Library::open(&path, "probe", &LoadOptions::default()).map_err(|error| error.to_string())?;
    let info = library.info();
    assert!(info.cpu && info.gpu && !info.kind_chooses_device && info.max_in_flight == 7);
    Ok(format!("{} {} {}", library.name(), library.version(), library.sdk()))
}

#[test]
fn a_right_probe_is_taken() {
    assert_eq!(open("right", &[]), Ok("probe 1 C".to_owned()));
}

/// Its tables reach `extension`, and hold null there, as a C compiler writes what an author has not named.
#[test]
fn what_may_be_left_out_may_be_null() {
    let path = scratch("probes").join("libtrireme_null.so");
    c_library("probes/probe.c", &path, &[]);
    let library = Library::open(&path, "probe", &LoadOptions::default()).unwrap();
    let backend = Backend::create(library, &SERVICES, r#"{"cmdline": {}}"#).unwrap();
    assert!(backend.extension("nothing/1").is_null());
    let here = Path::new(".");
    let args = ModelArgs { name: "m", version: 1, model_dir: here, version_dir: here, config_json: "{}" };
    assert_eq!(backend.load(&args).unwrap().openai_endpoints().unwrap(), [""; 0]);
}

#[test]
fn wrong_probes_are_refused() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 16] = [
        ("no_probe", &[("NO_PROBE", "1")], "it has no symbol 'trireme_backend_probe'"),
        ("magic", &[("MAGIC", "{'T','R','I','T','O','N','!',0}")], "not the magic of a Trireme backend"),
        ("size", &[("SIZE", "16")], "its probe has 16 bytes, at least 80 are needed"),
        (
            "major",
            &[("MAJOR", "(TRIREME_ABI_MAJOR + 1)")],
            "built for ABI version 2, this server has version 1: build it with the matching SDK",
        ),
        (
            "unfrozen",
            &[("MAJOR", "0")],
            "built for ABI version 0, this server has version 1: build it with the matching SDK",
        ),
        ("abort", &[("PANIC", "TriremePanicStrategy_ABORT")], "panic = \"abort\""),
        ("tag", &[("TAG", "{1}")], "layout record is of a kind that this server cannot read"),
        ("name", &[("NAME", "\"other\"")], "it is the backend 'other', expected was 'probe'"),
        ("no_name", &[("NAME", "((void *)0)")], "it is the backend '', expected was 'probe'"),
        ("no_tables", &[("BACKEND", "((void *)0)")], "its probe has no functions"),
        ("no_model", &[("MODEL", "((void *)0)")], "it has no model functions"),
        (
            "backend_size",
            &[("BACKEND_SIZE", "16")],
            "its backend functions take 16 bytes, at least 64 are needed",
        ),
        (
            "instance_size",
            &[("INSTANCE_SIZE", "0")],
            "its instance functions take 0 bytes, at least 32 are needed",
        ),
        (
            "no_load",
            &[("LOAD", "((void *)0)")],
            "its backend functions have none at offset 56, where one is needed",
        ),
        (
            "no_execute",
            &[("EXECUTE", "((void *)0)")],
            "its instance functions have none at offset 8, where one is needed",
        ),
        ("short", &[("BACKEND_SIZE", "sizeof(TriremeBackendVtable) - 9")], "built for an older ABI"),
    ];
    for (name, definitions, expected) in cases {
        let error = open(name, definitions).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{name}: {error}");
        assert!(error.contains(&format!("libtrireme_{name}.so'")), "{name}: {error}");
    }
}

#[test]
fn what_is_no_library_is_refused() {
    let folder = scratch("no-library");
    let open = |name: &str| {
        let path = folder.join(name);
        Library::open(&path, "x", &LoadOptions::default()).err().unwrap().to_string()
    };
    assert!(open("absent.so").ends_with("absent.so' cannot be read: No such file or directory (os error 2)"));
    fs::write(folder.join("text.so"), "a library, honestly").unwrap();
    assert!(
        open("text.so").contains("text.so' is not a library that can be loaded: "),
        "{}",
        open("text.so")
    );
    let path = folder.join("whole.so");
    c_library("probes/probe.c", &path, &[]);
    let whole = fs::read(&path).unwrap();
    fs::write(folder.join("half.so"), &whole[..whole.len() / 2]).unwrap();
    assert!(
        open("half.so").contains("half.so' is not a library that can be loaded: "),
        "{}",
        open("half.so")
    );
    fs::create_dir_all(folder.join("folder.so")).unwrap();
    assert!(open("folder.so").contains("cannot be read: Is a directory"), "{}", open("folder.so"));
}
