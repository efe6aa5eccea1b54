//! A frozen version only grows: whatever the record of its first release says is true of today's types. The record is
//! part of the frozen copy in `tests/abi-compat`, which nobody edits.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A type of a record: its first line and its fields.
struct Type<'a> {
    head: &'a str,
    fields: Vec<&'a str>,
}

fn types(record: &str) -> BTreeMap<&str, Type<'_>> {
    let paragraphs = record.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    paragraphs
        .map(|paragraph| {
            let mut lines = paragraph.lines();
            let head = lines.next().unwrap();
            (head.split(':').next().unwrap(), Type { head, fields: lines.collect() })
        })
        .collect()
}

/// What has changed that may not, in one sentence.
fn broken(frozen: &str, today: &str) -> Option<String> {
    let today = types(today);
    types(frozen).into_iter().find_map(|(name, frozen)| {
        let Some(today) = today.get(name) else { return Some(format!("{name} is gone")) };
        for (number, field) in frozen.fields.iter().enumerate() {
            match today.fields.get(number) {
                None => return Some(format!("{name} has no field '{}' any more", field.trim())),
                Some(now) if now != field => {
                    return Some(format!("{name} has '{}' where '{}' was", now.trim(), field.trim()));
                }
                Some(_) => {}
            }
        }
        // The size stands between the colon and 'bytes'; all else of the first line is fixed.
        let fixed = |head: &str| head.split_once(" bytes").map(|(_, rest)| rest.to_owned());
        if fixed(frozen.head) != fixed(today.head) {
            return Some(format!("{} was: {}", today.head, frozen.head));
        }
        let added = &today.fields[frozen.fields.len()..];
        let first = added.first()?.trim();
        if !may_grow(name, &frozen) {
            return Some(format!("{name} never grows, and has '{first}' now"));
        }
        // Who compiles C with a newer header leaves null where there is something new.
        let of_backend = ["BackendVtable", "ModelVtable", "InstanceVtable"].contains(&name);
        let needed = added.iter().find(|field| of_backend && !field.contains(": optional fn("));
        needed.map(|field| format!("{name}: '{}' has to be optional", field.trim()))
    })
}

/// Only what says how large it is, and the list of types, of which there is no value.
fn may_grow(name: &str, frozen: &Type<'_>) -> bool {
    name == "LayoutRoot" || frozen.fields.first().is_some_and(|field| field.trim() == "0 struct_size: usize")
}

fn record(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn version_1_has_only_grown() {
    let frozen = record("../../tests/abi-compat/v1/abi/layouts/v1.txt");
    assert_eq!(broken(&frozen, &record("layouts/v1.txt")), None);
}

/// Constants of the frozen header that today's does not define, or defines as something else. The minor version grows.
fn changed_constants<'a>(frozen: &'a str, today: &str) -> Vec<&'a str> {
    let of_a_constant = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some("#define") && words.next() != Some("TRIREME_ABI_MINOR")
    };
    let today: Vec<&str> = today.lines().filter(of_a_constant).collect();
    frozen.lines().filter(of_a_constant).filter(|line| !today.contains(line)).collect()
}

#[test]
fn constants_of_version_1_are_what_they_were() {
    let frozen = record("../../tests/abi-compat/v1/abi/include/trireme_backend.h");
    let today = record("include/trireme_backend.h");
    assert_eq!(changed_constants(&frozen, &today), Vec::<&str>::new());
    assert_eq!(frozen.lines().filter(|line| line.starts_with("#define Trireme")).count(), 52);
    let line = "#define TriremeStatusCode_CANCELLED 8";
    for changed in ["", "#define TriremeStatusCode_CANCELLED 9", "// #define TriremeStatusCode_CANCELLED 8"] {
        assert_eq!(changed_constants(&frozen, &today.replace(line, changed)), [line], "{changed}");
    }
    let id = "#define TRIREME_BLS_1 \"bls/1\"";
    assert_eq!(changed_constants(&frozen, &today.replace(id, "#define TRIREME_BLS_1 \"bls/2\"")), [id]);
    let minor = format!("#define TRIREME_ABI_MINOR {}", trireme_abi::ABI_MINOR);
    let grown = "#define TRIREME_ABI_MINOR 65535\n#define TriremeStatusCode_NEW 9";
    assert!(changed_constants(&frozen, &today.replace(&minor, grown)).is_empty());
}

#[test]
fn what_is_no_growth_is_seen() {
    let frozen = record("layouts/v1.txt");
    let changed = |from: &str, to: &str| {
        assert_eq!(frozen.matches(from).count(), 1, "{from}");
        broken(&frozen, &frozen.replace(from, to))
    };
    let refused = [
        // In the middle, in one type that may grow and in one that may not.
        (
            "    8 execute: fn",
            "    8 planted: u64\n   16 execute: fn",
            "InstanceVtable has '8 planted: u64' where '8 execute: fn(",
        ),
        (
            "   20 buffer_count: u32\n",
            "   20 planted: u32\n   24 buffer_count: u32\n",
            "InputInfo has '20 planted: u32' where '20 buffer_count: u32' was",
        ),
        ("   20 buffer_count: u32\n", "   20 buffer_count: i32\n", "where '20 buffer_count: u32' was"),
        ("   24 destroy: fn(instance: *mut c_void)\n", "", "InstanceVtable has no field '24 destroy: fn("),
        (
            "drain: fn(instance: *mut c_void)",
            "drain: fn(instance: *const c_void)",
            "InstanceVtable has '16 drain",
        ),
        (
            "Response: 56 bytes, aligned to 8",
            "Response: 56 bytes, aligned to 16",
            "Response: 56 bytes, aligned to 16 was",
        ),
        ("all up to 'destroy' was", "all up to 'drain' was", "'drain' was there from the start was: "),
        (
            "   40 message: StrView\n",
            "   40 message: StrView\n   56 more: u64\n",
            "Response never grows, and has '56 more",
        ),
        (
            "   24 destroy: fn(instance: *mut c_void)\n",
            "   24 destroy: fn(instance: *mut c_void)\n   32 more: fn(instance: *mut c_void)\n",
            "InstanceVtable: '32 more: fn(instance: *mut c_void)' has to be optional",
        ),
    ];
    for (from, to, expected) in refused {
        let said = changed(from, to).unwrap_or_default();
        assert!(said.contains(expected), "{to}: {said}");
    }
    let without = frozen.split("\n\n").filter(|one| !one.starts_with("CallReply:")).collect::<Vec<_>>();
    assert_eq!(broken(&frozen, &without.join("\n\n")), Some("CallReply is gone".to_owned()));

    let grown = [
        (
            "   24 destroy: fn(instance: *mut c_void)\n",
            "   24 destroy: fn(instance: *mut c_void)\n   32 more: optional fn(instance: *mut c_void)\n",
        ),
        (
            "InstanceKind: 4 bytes",
            "Newcomer: 4 bytes, aligned to 4\n    0 field_0: u32\n\nInstanceKind: 4 bytes",
        ),
    ];
    for (from, to) in grown {
        assert_eq!(changed(from, to), None, "{to}");
    }
}
