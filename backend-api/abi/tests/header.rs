//! The C header is made from the types, so the two cannot drift apart. `UPDATE_EXPECT=1` writes it anew.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, ExportConfig, Language, Style};

const ABOUT: &str = "\
/* The ABI between the Trireme server and a backend library, for authors in C.
 *
 * Made from the crate `trireme-abi`; not edited by hand. A library exports the static
 *
 *     const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, ... };
 *
 * with `layout_tag` all zero, `layout` NULL and `panic` TriremePanicStrategy_NONE, is called
 * `libtrireme_<name>.so`, and is never unloaded. */";

const MAGIC: &str = "
/* What begins every TriremeProbe. */
#define TRIREME_PROBE_MAGIC { 'T', 'R', 'I', 'R', 'E', 'M', 'E', '\\0' }";

const EXPORT: &str = "\
#ifdef __cplusplus
extern \"C\" {
#endif
// The one symbol that a backend library exports.
extern const TriremeProbe trireme_backend_probe;
#ifdef __cplusplus
}
#endif";

const SOURCES: [&str; 17] = [
    "lib",
    "args",
    "bls",
    "buffer",
    "device",
    "dtype",
    "fault",
    "host",
    "metrics",
    "models",
    "object",
    "openai",
    "probe",
    "request",
    "responder",
    "status",
    "text",
];

#[test]
fn the_header_says_what_the_types_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let upper = |name: &str| (name.to_owned(), format!("TRIREME_{name}"));
    let export = ExportConfig {
        prefix: Some("Trireme".to_owned()),
        // Everything else follows from it.
        include: [
            "Probe",
            "BlsVtable",
            "DeviceVtable",
            "FaultVtable",
            "MetricsVtable",
            "ModelsVtable",
            "OpenAiModel",
            "OpenAiVtable",
            "OpenAiAnswer",
        ]
        .map(str::to_owned)
        .into(),
        rename: ["ABI_MAJOR", "ABI_MINOR"].map(upper).into(),
        renaming_overrides_prefixing: true,
        ..ExportConfig::default()
    };
    let config = Config {
        language: Language::C,
        style: Style::Both,
        header: Some(ABOUT.to_owned()),
        include_guard: Some("TRIREME_BACKEND_H".to_owned()),
        after_includes: Some(format!("{MAGIC}{}", extensions())),
        trailer: Some(EXPORT.to_owned()),
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(str::to_owned).into(),
        cpp_compat: true,
        usize_is_size_t: true,
        line_length: 110,
        documentation_style: DocumentationStyle::C99,
        export,
        ..Config::default()
    };
    let mut builder = Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let text = in_c(&String::from_utf8(text).unwrap());
    expect_test::expect_file!["../include/trireme_backend.h"].assert_eq(&text);
}

/// The ids of the extensions, which are texts and so nothing that cbindgen writes.
fn extensions() -> String {
    let ids = [
        trireme_abi::BLS_1,
        trireme_abi::DEVICE_1,
        trireme_abi::FAULT_1,
        trireme_abi::METRICS_1,
        trireme_abi::MODELS_1,
        trireme_abi::OPENAI_1,
    ];
    let define = |id: &str| {
        let name = id.to_uppercase().replace('/', "_");
        format!("#define TRIREME_{name} \"{id}\"\n")
    };
    let defines = ids.map(define).concat();
    format!("\n\n/* The ids of extensions, see `extension` of the tables. */\n{}", defines.trim_end())
}

/// What only Rust says: an array without elements for an opaque type, links in comments.
fn in_c(text: &str) -> String {
    let mut text = text.replace("[`", "`").replace("`]", "`");
    let handles = ["RequestHandle", "ResponderHandle", "CallerHandle", "MetricSetHandle"];
    for handle in handles.map(|name| format!("Trireme{name}")) {
        let rust = format!("typedef struct {handle} {{\n  uint8_t private_[0];\n}} {handle};");
        assert!(text.contains(&rust), "{handle} is opaque");
        text = text.replace(&rust, &format!("typedef struct {handle} {handle};"));
    }
    text
}
