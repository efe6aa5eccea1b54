//! Texts that are too large, too deep or no text: refused at once, with a message of a decent length.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use trireme_model_config::{Draft, textproto};

/// A message type that holds itself, which the schema of configurations has not.
fn nested() -> MessageDescriptor {
    let field = FieldDescriptorProto {
        name: Some("inner".to_owned()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Message.into()),
        type_name: Some(".Nested".to_owned()),
        ..FieldDescriptorProto::default()
    };
    let message =
        DescriptorProto { name: Some("Nested".to_owned()), field: vec![field], ..DescriptorProto::default() };
    let file = FileDescriptorProto {
        name: Some("nested.proto".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message],
        ..FileDescriptorProto::default()
    };
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_message_by_name("Nested").unwrap()
}

#[test]
fn depth() {
    let text = |depth: usize| "inner { ".repeat(depth) + &"}".repeat(depth);
    assert!(textproto::parse(&text(64), &nested()).is_ok());
    let error = textproto::parse(&text(65), &nested()).unwrap_err();
    assert_eq!(error.message, "messages are nested deeper than 64");
    assert!(textproto::parse(&text(100_000), &nested()).is_err());
}

#[test]
fn size() {
    let finding = Draft::parse(None, "#".repeat((1 << 20) + 1)).unwrap_err();
    assert_eq!(finding.to_string(), "has 1048577 bytes; at most 1048576 are read");
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    let said = Draft::read(file.path()).unwrap_err().to_string();
    assert!(said.ends_with("has 1099511627776 bytes; at most 1048576 are read"), "{said}");
}

/// The suggestion, the message and the line shown stay short for a name of a mebibyte.
#[test]
fn long_names() {
    let long = "a".repeat((1 << 20) - 10);
    for text in
        [long.clone(), format!("name: {long}"), format!("max_batch_size: {long}"), format!("name: \"{long}")]
    {
        let said = Draft::parse(None, text).unwrap_err().to_string();
        assert!(said.len() < 1000, "{} bytes", said.len());
    }
    let number = "9".repeat(1 << 19);
    let said = Draft::parse(None, format!("max_batch_size: {number}")).unwrap_err().to_string();
    assert!(said.len() < 1000, "{} bytes", said.len());
}

#[test]
fn bytes_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.pbtxt");
    std::fs::write(&path, b"backend: \"identity\"\nname: \"\xff\"\n").unwrap();
    let said = Draft::read(&path).unwrap_err().to_string();
    assert!(said.contains("config.pbtxt:2:8: the byte 0xff is not UTF-8\n  | name: \""), "{said}");
    let missing = Draft::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none: cannot be read: "), "{missing}");
}
