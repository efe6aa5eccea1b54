use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message;
use trireme_protocol::proto::ModelConfig;

use crate::descriptor;
use crate::textproto::print;

/// A configuration as the text of a `config.pbtxt`. Reading it back gives the same configuration.
pub fn to_pbtxt(config: &ModelConfig) -> String {
    let Some(descriptor) = descriptor() else { return String::new() };
    let message = DynamicMessage::decode(descriptor, config.encode_to_vec().as_slice());
    message.map(|message| print(&message)).unwrap_or_default()
}
