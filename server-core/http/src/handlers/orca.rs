//! The load of a model in the header of its answers, for balancers that ask for it (ORCA).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use trireme_protocol::grpc::parse_version;
use trireme_runtime::Core;

use crate::answer::Answer;
use crate::route::Model;

/// `text` or `json`.
const ASKED: &str = "endpoint-load-metrics-format";
static ANSWERED: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The gauge of language models, and its label.
const BLOCKS: &str = "nv_trt_llm_kv_cache_block_metrics";
const KIND: &str = "kv_cache_block_type";

/// A load that was asked for.
pub(crate) struct Asked {
    json: bool,
    name: String,
    version: Option<i64>,
}

impl Asked {
    /// Whether a call asks for the load of its model. A form that is none asks for nothing.
    pub(crate) fn by(headers: &HeaderMap, model: &Model<'_>) -> Option<Self> {
        let json = match headers.get(ASKED)?.to_str().ok()? {
            "json" => true,
            "text" => false,
            other => {
                tracing::debug!("'{other}' is no form of {ASKED}: text and json are");
                return None;
            }
        };
        let version = parse_version(model.version).ok()?;
        Some(Self { json, name: model.name.clone().into_owned(), version })
    }

    /// Adds it to the answer, if the model has such a load.
    pub(crate) fn tell(&self, core: &Core, answer: &mut Answer) {
        let Ok(model) = core.model(&self.name, self.version) else { return };
        let blocks = |kind| core.model_gauge(&model, BLOCKS, (KIND, kind));
        if let (Some(used), Some(most), Some(tokens)) = (blocks("used"), blocks("max"), blocks("tokens_per"))
            && let Ok(text) = HeaderValue::from_str(&text(self.json, used / most.max(1.0), most * tokens))
        {
            answer.headers_mut().insert(ANSWERED.clone(), text);
        }
    }
}

/// The header's value: the share of the keys' and values' blocks that is taken, and how many tokens all of them hold.
fn text(json: bool, utilization: f64, capacity: f64) -> String {
    match json {
        true => format!(
            r#"JSON {{"named_metrics":{{"kv_cache_utilization":{utilization},"max_token_capacity":{capacity:.0}}}}}"#
        ),
        false => format!(
            "TEXT named_metrics.kv_cache_utilization={utilization:.6}, named_metrics.max_token_capacity={capacity:.0}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        assert_eq!(
            text(true, 0.25, 4096.0),
            r#"JSON {"named_metrics":{"kv_cache_utilization":0.25,"max_token_capacity":4096}}"#
        );
        assert_eq!(
            text(false, 0.25, 4096.0),
            "TEXT named_metrics.kv_cache_utilization=0.250000, named_metrics.max_token_capacity=4096"
        );
    }
}
