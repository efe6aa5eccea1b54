//! The C header is made from the types, so the two cannot drift apart. `UPDATE_EXPECT=1` writes it anew.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use cbindgen::{Builder, Config, EnumConfig, ExportConfig, Language, Style};

const ABOUT: &str = "";

#[test]
fn the_header_says_what_the_types_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config {
        language: Language::C,
        include_guard: Some("TRIREME_BACKEND_H".to_owned()),
        header: Some(ABOUT.to_owned()),
        style: Style::Both,
        cpp_compat: true,
        usize_is_size_t: true,
        documentation: true,
        export: ExportConfig { prefix: Some("Trireme".to_owned()), ..ExportConfig::default() },
        enumeration: EnumConfig::default(),
        ..Config::default()
    };
    let files = ["lib", "args", "buffer", "dtype", "host", "object", "probe", "request", "responder", "status", "text"];
    let mut builder = Builder::new().with_config(config);
    for file in files {
        builder = builder.with_src(root.join(format!("src/{file}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let text = String::from_utf8(text).unwrap();
    expect_test::expect_file!["../include/trireme_backend.h"].assert_eq(&text);
}
