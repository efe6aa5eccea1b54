//! Sizes, alignments and offsets of every type on the wire, and the signature of every function, as the version has
//! them. `UPDATE_EXPECT=1` writes them anew; what may be new in them is held by `growth.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;

use abi_stable::StableAbi;
use abi_stable::type_layout::{TLData, TLField, TLFunction, TypeLayout};
use trireme_abi::{
    BackendVtable, BlsVtable, Buffer, DeviceInfo, DeviceVtable, FaultVtable, LayoutRootRef, MetricsVtable,
    ModelsVtable, OpenAiModel, OpenAiVtable, OutputTensor, Probe, RequestVtable,
};

#[test]
fn layouts_are_those_of_version_1() {
    let mut types = Types::default();
    types.visit(<LayoutRootRef as StableAbi>::LAYOUT);
    // Extensions: found by their names, so they are not under the root.
    types.visit(<BlsVtable as StableAbi>::LAYOUT);
    types.visit(<OpenAiVtable as StableAbi>::LAYOUT);
    types.visit(<OpenAiModel as StableAbi>::LAYOUT);
    types.visit(<FaultVtable as StableAbi>::LAYOUT);
    types.visit(<MetricsVtable as StableAbi>::LAYOUT);
    types.visit(<ModelsVtable as StableAbi>::LAYOUT);
    types.visit(<DeviceVtable as StableAbi>::LAYOUT);
    types.visit(<DeviceInfo as StableAbi>::LAYOUT);
    let mut text = probe();
    types.0.into_values().for_each(|description| text += &description);
    expect_test::expect_file!["../layouts/v1.txt"].assert_eq(&text);
}

#[test]
fn the_record_is_that_of_the_compiler() {
    let mut types = Types::default();
    types.visit(<LayoutRootRef as StableAbi>::LAYOUT);
    let line = |ty: &str, offset: usize, field: &str| {
        let line = format!("\n{offset:>5} {field}: ");
        assert!(types.0[ty].contains(&line), "{ty}: {line}\n{}", types.0[ty]);
    };
    line("Buffer", offset_of!(Buffer, fd_offset), "fd_offset");
    line("Buffer", offset_of!(Buffer, release), "release");
    line("OutputTensor", offset_of!(OutputTensor, buffer), "buffer");
    line("RequestVtable", offset_of!(RequestVtable, release), "release");
    line("BackendVtable", offset_of!(BackendVtable, extension), "extension");
    assert!(types.0["BackendVtable"].contains(&format!("{} bytes", size_of::<BackendVtable>())));
}

/// Descriptions by name, so that the order in which types are met does not matter.
#[derive(Default)]
struct Types(BTreeMap<String, String>);

impl Types {
    fn visit(&mut self, layout: &'static TypeLayout) {
        let name = name(layout);
        if self.0.contains_key(&name) {
            return;
        }
        let (fields, note): (Vec<TLField>, _) = match layout.data() {
            TLData::Struct { fields } => (fields.iter().collect(), String::new()),
            TLData::PrefixType(prefix) => {
                let fields: Vec<TLField> = prefix.fields.iter().collect();
                let last = fields[usize::from(prefix.first_suffix_field) - 1].name();
                let note = format!(", all up to '{last}' was there from the start");
                (fields, note)
            }
            _ => Default::default(),
        };
        if !fields.is_empty() {
            let description = describe(&name, layout, &fields, &note);
            self.0.insert(name, description);
        }
        for field in fields {
            self.visit(field.layout());
            for function in field.function_range() {
                signature(&function).1.into_iter().for_each(|layout| self.visit(layout));
            }
        }
        // What pointers and references to prefix types point to.
        layout.phantom_fields().iter().for_each(|field| self.visit(field.layout()));
    }
}

fn describe(name: &str, layout: &'static TypeLayout, fields: &[TLField], note: &str) -> String {
    let (mut lines, mut end) = (String::new(), 0usize);
    for field in fields {
        let offset = end.next_multiple_of(field.layout().alignment());
        // `struct_size` cannot tell padding from a field, and nobody says what is in it.
        assert_eq!(offset, end, "{name}: padding before {}; give it a name", field.name());
        end = offset + field.layout().size();
        let functions: Vec<String> = field.function_range().iter().map(|f| signature(&f).0).collect();
        let optional = if self::name(field.layout()).starts_with("Option<") { "optional " } else { "" };
        let ty = match functions.as_slice() {
            [] => self::name(field.layout()),
            [function] => format!("{optional}{function}"),
            several => panic!("{name}.{}: {several:?}", field.name()),
        };
        writeln!(lines, "{offset:>5} {}: {ty}", field.name()).unwrap();
    }
    let size = end.next_multiple_of(layout.alignment());
    assert_eq!(size, end, "{name}: padding at its end; give it a name");
    format!("{name}: {size} bytes, aligned to {}{note}\n{lines}\n", layout.alignment())
}

fn name(layout: &'static TypeLayout) -> String {
    layout.full_type().to_string().trim().replace("OpaqueField", "pointer")
}

/// A function as it is written in C or Rust, and the types in it.
fn signature(function: &TLFunction) -> (String, Vec<&'static TypeLayout>) {
    let mut types: Vec<&'static TypeLayout> =
        function.param_type_layouts.iter().map(|layout| layout()).collect();
    let names = function.param_names.as_str().split([',', ';']).filter(|name| !name.is_empty());
    let parameters: Vec<String> =
        names.zip(&types).map(|(parameter, layout)| format!("{parameter}: {}", name(layout))).collect();
    assert_eq!(parameters.len(), types.len(), "{function}: every parameter has a name");
    let result = function.return_type_layout().map(|layout| layout());
    types.extend(result);
    let result = result.map_or_else(String::new, |layout| format!(" -> {}", name(layout)));
    (format!("fn({}){result}", parameters.join(", ")), types)
}

/// The business card is no `StableAbi` type: it is read before any layout is compared.
fn probe() -> String {
    let mut text = format!("Probe: {} bytes, aligned to {}\n", size_of::<Probe>(), align_of::<Probe>());
    macro_rules! offsets {
        ($($field:ident),*) => {
            $(writeln!(text, "{:>5} {}", offset_of!(Probe, $field), stringify!($field)).unwrap();)*
        };
    }
    offsets!(
        magic,
        struct_size,
        abi_major,
        abi_minor,
        panic,
        reserved,
        name,
        version,
        sdk,
        layout_tag,
        layout,
        vtable
    );
    text + "\n"
}
