use prost_reflect::prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions};
use trireme_protocol::proto::ModelConfig;

use crate::descriptor;

/// Fields of 64 bits that stay strings, as clients expect them.
const STRINGS: [&[&str]; 4] = [
    &["sequence_batching", "state", "initial_state", "dims"],
    &["optimization", "cuda", "graph_spec", "input"],
    &["optimization", "cuda", "graph_spec", "graph_lower_bound"],
    &["instance_group", "secondary_devices", "device_id"],
];

/// A configuration as JSON: protobuf's field names, all defaults, 64-bit numbers as numbers.
pub fn config_json(config: &ModelConfig) -> String {
    let Some(descriptor) = descriptor() else { return "{}".to_owned() };
    let Ok(message) = DynamicMessage::decode(descriptor, config.encode_to_vec().as_slice()) else {
        return "{}".to_owned();
    };
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    let plain = message.serialize_with_options(serde_json::value::Serializer, &options);
    let strings = message
        .serialize_with_options(serde_json::value::Serializer, &options.stringify_64_bit_integers(true));
    match (plain, strings) {
        (Ok(mut plain), Ok(strings)) => {
            for path in STRINGS {
                keep_strings(&mut plain, &strings, path);
            }
            plain.to_string()
        }
        _ => "{}".to_owned(),
    }
}

/// Copies the value at `path` from the form in which it is a string; lists on the way are walked.
fn keep_strings(plain: &mut serde_json::Value, strings: &serde_json::Value, path: &[&str]) {
    if let (Some(plain), Some(strings)) = (plain.as_array_mut(), strings.as_array()) {
        for (plain, strings) in plain.iter_mut().zip(strings) {
            keep_strings(plain, strings, path);
        }
        return;
    }
    let Some((first, rest)) = path.split_first() else { return };
    if let (Some(plain), Some(strings)) = (plain.get_mut(*first), strings.get(*first)) {
        if rest.is_empty() {
            *plain = strings.clone();
        } else {
            keep_strings(plain, strings, rest);
        }
    }
}

/// A configuration from JSON by protobuf's rules; an unknown field is an error.
///
/// # Errors
/// What is wrong, with line and column of the JSON.
pub fn config_from_json(text: &str) -> Result<ModelConfig, String> {
    let descriptor = descriptor().ok_or("the schema cannot be read")?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options)
        .map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}
