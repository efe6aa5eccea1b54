//! `config.pbtxt` and JSON into a checked model configuration.
//!
//! A [`Draft`] is a configuration as it was written, with the place of every field. A backend may complete it; then
//! [`Draft::check`] fills in the defaults, holds it against every rule, and gives a [`CheckedConfig`] or the list of
//! [`Finding`]s, each with file, line and column.
//!
//! ```
//! use std::path::Path;
//! use trireme_model_config::Draft;
//!
//! let text = "backend: \"identity\"\ndynamic_batching { }".to_owned();
//! let mut draft = Draft::parse(Some(Path::new("config.pbtxt")), text).unwrap();
//! draft.normalise("my_model", &[]);
//! let findings = draft.check("my_model").unwrap_err();
//! assert!(findings[0].to_string().starts_with("config.pbtxt:2:1: dynamic batching needs max_batch_size above 0"));
//! ```
#![forbid(unsafe_code)]

mod capabilities;
mod check;
mod checked;
mod complete;
mod draft;
mod finding;
mod json;
mod normalise;
mod pbtxt;
mod suggest;
pub mod textproto;
mod version_policy;

pub use capabilities::Capabilities;
pub use checked::{
    CheckedConfig, DynamicBatching, InstanceGroup, InstanceKind, QueuePolicy, RateLimiter, RateResource,
    Scheduling, TensorSpec,
};
pub use complete::complete;
pub use draft::Draft;
pub use finding::{Finding, Severity};
pub use json::{config_from_json, config_json};
pub use pbtxt::to_pbtxt;
pub use version_policy::VersionPolicy;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use std::sync::LazyLock;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(trireme_protocol::proto::DESCRIPTORS).ok());

/// The descriptor of `inference.ModelConfig`.
pub(crate) fn descriptor() -> Option<MessageDescriptor> {
    POOL.as_ref()?.get_message_by_name("inference.ModelConfig")
}
