//! Any configuration written as text, or as JSON, reads back as the same; any text is read or refused, never more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use proptest::prelude::*;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use trireme_model_config::{Draft, config_from_json, config_json, to_pbtxt};
use trireme_protocol::proto;

static SCHEMA: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    pool.get_message_by_name("inference.ModelConfig").unwrap()
});

/// Any message of a type; each field is there or not. The schema has no type within itself.
fn messages(descriptor: &MessageDescriptor) -> BoxedStrategy<Value> {
    let descriptor = descriptor.clone();
    let fields: Vec<_> =
        descriptor.fields().map(|field| proptest::option::weighted(0.3, values(&field))).collect();
    fields
        .prop_map(move |values| {
            let mut message = DynamicMessage::new(descriptor.clone());
            for (field, value) in descriptor.fields().zip(values) {
                if let Some(value) = value {
                    message.set_field(&field, value);
                }
            }
            Value::Message(message)
        })
        .boxed()
}

fn values(field: &FieldDescriptor) -> BoxedStrategy<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!() };
        let keys = single(&entry.map_entry_key_field()).prop_map(|key| match key {
            Value::String(key) => MapKey::String(key),
            Value::U64(key) => MapKey::U64(key),
            other => panic!("a map has the key {other:?}"),
        });
        let values = single(&entry.map_entry_value_field());
        return proptest::collection::hash_map(keys, values, 0..3).prop_map(Value::Map).boxed();
    }
    match field.is_list() {
        true => proptest::collection::vec(single(field), 0..3).prop_map(Value::List).boxed(),
        false => single(field),
    }
}

fn single(field: &FieldDescriptor) -> BoxedStrategy<Value> {
    match field.kind() {
        Kind::Message(descriptor) => messages(&descriptor),
        Kind::Enum(descriptor) => {
            let numbers: Vec<i32> = descriptor.values().map(|value| value.number()).collect();
            proptest::sample::select(numbers).prop_map(Value::EnumNumber).boxed()
        }
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::String => strings().prop_map(Value::String).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Int64 => any::<i64>().prop_map(Value::I64).boxed(),
        Kind::Uint32 => any::<u32>().prop_map(Value::U32).boxed(),
        Kind::Uint64 => any::<u64>().prop_map(Value::U64).boxed(),
        Kind::Float => any::<f32>().prop_map(Value::F32).boxed(),
        Kind::Double => any::<f64>().prop_map(Value::F64).boxed(),
        other => panic!("the schema has a field of the kind {other:?}"),
    }
}

/// Any characters, and more of those that need an escape or stand beside one.
fn strings() -> impl Strategy<Value = String> {
    let awkward: Vec<char> = "\n\t\r\0\u{7}\u{7f}\"'\\07xu#{}é€".chars().collect();
    let letter = prop_oneof![any::<char>(), proptest::sample::select(awkward)];
    proptest::collection::vec(letter, 0..8).prop_map(|letters| letters.into_iter().collect())
}

fn configs() -> impl Strategy<Value = proto::ModelConfig> {
    messages(&SCHEMA).prop_map(|value| match value {
        Value::Message(message) => message.transcode_to().unwrap(),
        other => panic!("{other:?} is no message"),
    })
}

/// Numbers of 64 bits with few digits: the JSON reader may miss the last bit of others.
fn round_buckets(config: &mut proto::ModelConfig) {
    use proto::model_metrics::metric_control::MetricOptions;
    let controls = config.model_metrics.iter_mut().flat_map(|metrics| &mut metrics.metric_control);
    for options in controls.filter_map(|control| control.metric_options.as_mut()) {
        let MetricOptions::HistogramOptions(options) = options;
        options.buckets = (0..options.buckets.len()).map(|number| number as f64 / 8.0).collect();
    }
}

/// Text of pieces that a configuration is made of, so that the reader gets far into it.
fn nearly_texts() -> impl Strategy<Value = String> {
    const PIECES: [&str; 36] = [
        "name",
        "input",
        "dims",
        "data_type",
        "parameters",
        "key",
        "value",
        "string_value",
        "dynamic_batching",
        "max_batch_size",
        "instance_group",
        "count",
        "priority_queue_policy",
        "optimization",
        "kind",
        ":",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        ",",
        ";",
        "-",
        "1",
        "0x",
        "09",
        "1e5",
        "99999999999999999999",
        "TYPE_FP32",
        "\"a\\",
        "'b'",
        "# c\n",
        "\n",
        "ä",
    ];
    proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40)
        .prop_map(|pieces| pieces.join(" "))
}

/// Reads and checks it; what comes of it does not matter, only that something does.
fn survive(text: String) {
    match Draft::parse(None, text) {
        Ok(mut draft) => {
            draft.normalise("m", &[]);
            let said = draft.check("m").map_or_else(|findings| findings, |(_, warnings)| warnings);
            said.iter().for_each(|finding| assert!(!finding.to_string().is_empty()));
        }
        Err(finding) => {
            assert!(finding.position.is_some(), "{finding}");
            assert!(finding.to_string().len() < 4000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn text(config in configs()) {
        let text = to_pbtxt(&config);
        let draft = Draft::parse(None, text.clone()).map_err(|finding| TestCaseError::fail(finding.to_string()))?;
        prop_assert_eq!(to_pbtxt(&draft.proto), text);
        prop_assert_eq!(draft.proto, config);
    }

    #[test]
    fn json(mut config in configs()) {
        round_buckets(&mut config);
        let json = config_json(&config);
        prop_assert_eq!(config_from_json(&json).map_err(TestCaseError::fail)?, config);
    }

    #[test]
    fn any_configuration_is_checked(config in configs(), directory in "[a-z]*") {
        let mut draft = Draft::parse(None, to_pbtxt(&config)).unwrap();
        draft.normalise(&directory, &[]);
        let once = draft.proto.clone();
        draft.normalise(&directory, &[]);
        prop_assert_eq!(&draft.proto, &once, "filling in defaults twice is the same as once");
        let _ = draft.check(&directory);
    }

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        survive(text);
    }

    #[test]
    fn any_text_of_familiar_pieces_is_survived(text in nearly_texts()) {
        survive(text);
    }

    #[test]
    fn a_cut_and_bitten_text_is_survived(
        config in configs(), cut in any::<prop::sample::Index>(), bitten in any::<prop::sample::Index>(), by: char,
    ) {
        let mut letters: Vec<char> = to_pbtxt(&config).chars().collect();
        letters.push('\n');
        letters.truncate(cut.index(letters.len()) + 1);
        let at = bitten.index(letters.len());
        letters[at] = by;
        survive(letters.into_iter().collect());
    }
}

/// Files hold bytes, not text.
#[test]
fn any_bytes_are_survived() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(any::<u8>(), 0..64);
    let outcome = runner.run(&strategy, |bytes| {
        std::fs::write(file.path(), bytes).unwrap();
        let _ = Draft::read(file.path());
        Ok(())
    });
    outcome.unwrap();
}

/// Numbers that JSON has not, and the sign of zero.
#[test]
fn numbers_that_are_not_finite() {
    for word in ["inf", "-inf", "nan", "-Infinity", "-0.0", "1e-45"] {
        let text = format!("sequence_batching {{ direct {{ minimum_slot_utilization: {word} }} }}");
        let config = Draft::parse(None, text).unwrap().proto;
        let again = Draft::parse(None, to_pbtxt(&config)).unwrap().proto;
        assert_eq!(to_pbtxt(&again), to_pbtxt(&config), "{word}");
        assert!(config_from_json(&config_json(&config)).is_ok(), "{word}");
    }
}
