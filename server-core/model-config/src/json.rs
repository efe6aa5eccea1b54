use prost_reflect::prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use trireme_protocol::proto::ModelConfig;

use crate::descriptor;

/// Fields of 64 bits that stay strings, as clients expect them.
const STRINGS: [&[&str]; 4] = [
    &["sequence_batching", "state", "initial_state", "dims"],
    &["optimization", "cuda", "graph_spec", "input"],
    &["optimization", "cuda", "graph_spec", "graph_lower_bound"],
    &["instance_group", "secondary_devices", "device_id"],
];

/// Fields of 32 bits, whose numbers stay as short as they were written: 0.1, not 0.10000000149011612.
const SHORT: [&[&str]; 2] = [
    &["sequence_batching", "direct", "minimum_slot_utilization"],
    &["sequence_batching", "control_input", "control", "fp32_false_true"],
];

/// A configuration as JSON: protobuf's field names, all defaults, 64-bit numbers as numbers.
pub fn config_json(config: &ModelConfig) -> String {
    let Some(descriptor) = descriptor() else { return "{}".to_owned() };
    let Ok(message) = DynamicMessage::decode(descriptor.clone(), config.encode_to_vec().as_slice()) else {
        return "{}".to_owned();
    };
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    let plain = message.serialize_with_options(serde_json::value::Serializer, &options);
    let short = by_text(&message, &options);
    let strings = message
        .serialize_with_options(serde_json::value::Serializer, &options.stringify_64_bit_integers(true));
    match (plain, short, strings) {
        (Ok(mut plain), Some(short), Ok(strings)) => {
            SHORT.iter().for_each(|path| take_over(&mut plain, &short, path));
            STRINGS.iter().for_each(|path| take_over(&mut plain, &strings, path));
            sort_maps(&mut plain, &descriptor);
            plain.to_string()
        }
        _ => "{}".to_owned(),
    }
}

/// By way of the text, in which a number of 32 bits keeps its short form.
fn by_text(message: &DynamicMessage, options: &SerializeOptions) -> Option<serde_json::Value> {
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, options).ok()?;
    serde_json::from_slice(&serializer.into_inner()).ok()
}

/// Copies the value at `path` from another form of the same message; lists on the way are walked.
fn take_over(plain: &mut serde_json::Value, other: &serde_json::Value, path: &[&str]) {
    if let (Some(plain), Some(other)) = (plain.as_array_mut(), other.as_array()) {
        for (plain, other) in plain.iter_mut().zip(other) {
            take_over(plain, other, path);
        }
        return;
    }
    let Some((first, rest)) = path.split_first() else { return };
    if let (Some(plain), Some(other)) = (plain.get_mut(*first), other.get(*first)) {
        if rest.is_empty() {
            *plain = other.clone();
        } else {
            take_over(plain, other, rest);
        }
    }
}

/// Sorts the keys of all maps, which come in no order of their own, so that one configuration is one text.
fn sort_maps(value: &mut serde_json::Value, message: &MessageDescriptor) {
    for field in message.fields() {
        let Some(value) = value.get_mut(field.name()) else { continue };
        if field.is_map()
            && let Some(map) = value.as_object_mut()
        {
            map.sort_keys();
        }
        let Kind::Message(inner) = field.kind() else { continue };
        match value {
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| sort_maps(item, &inner)),
            serde_json::Value::Object(map) if field.is_map() => {
                if let Kind::Message(inner) = inner.map_entry_value_field().kind() {
                    map.values_mut().for_each(|value| sort_maps(value, &inner));
                }
            }
            value => sort_maps(value, &inner),
        }
    }
}

/// A configuration from JSON by protobuf's rules: the names of fields as in the schema or in camel case, those of enums
/// in any case, numbers of 64 bits also as strings, and a list of one also without its brackets. An unknown field is an
/// error.
///
/// # Errors
/// What is wrong, with line and column of the JSON.
pub fn config_from_json(text: &str) -> Result<ModelConfig, String> {
    let descriptor = descriptor().ok_or("the schema cannot be read")?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message = read(&descriptor, &mut deserializer)
        .and_then(|message| deserializer.end().map(|()| message))
        .or_else(|error| in_the_usual_form(&descriptor, text).ok_or(error))
        .map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

fn read<'de, D: serde::Deserializer<'de>>(
    descriptor: &MessageDescriptor,
    deserializer: D,
) -> Result<DynamicMessage, D::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), deserializer, &options)
}

/// The message of a text that is refused as it stands only because names of enums are not in capitals or a list of one
/// has no brackets: protobuf's own reader takes both.
fn in_the_usual_form(descriptor: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    let mut value = serde_json::from_str(text).ok()?;
    adapt(descriptor, &mut value).then(|| read(descriptor, value).ok())?
}

/// Whether something had to be changed.
fn adapt(descriptor: &MessageDescriptor, value: &mut serde_json::Value) -> bool {
    let Some(fields) = value.as_object_mut() else { return false };
    let mut changed = false;
    for (name, value) in fields {
        let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        if field.is_list() && !value.is_array() && !value.is_null() {
            *value = serde_json::Value::Array(vec![value.take()]);
            changed = true;
        }
        let values: Vec<&mut serde_json::Value> = match value {
            serde_json::Value::Array(list) => list.iter_mut().collect(),
            serde_json::Value::Object(map) if field.is_map() => map.values_mut().collect(),
            one => vec![one],
        };
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        for value in values {
            match (&kind, value) {
                (Kind::Message(inner), value) => changed |= adapt(inner, value),
                (Kind::Enum(_), serde_json::Value::String(name)) => {
                    let capitals = name.to_ascii_uppercase();
                    changed |= capitals != *name;
                    *name = capitals;
                }
                _ => {}
            }
        }
    }
    changed
}
