//! JSON bodies of the answers that are not inference. Each is a view of the gRPC message that says the same, so
//! that both doors show one truth; the order of keys is the C++ server's.

mod index;
mod metadata;
mod statistics;

pub use index::index_json;
pub use metadata::{model_metadata_json, server_metadata_json};
pub use statistics::statistics_json;

/// These views have only strings, numbers and lists, which serde_json cannot fail on.
fn render(view: &impl serde::Serialize) -> String {
    serde_json::to_string(view).unwrap_or_default()
}
