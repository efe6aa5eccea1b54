//! `GET /v2` and `GET /v2/models/M`.

use serde::Serialize;

use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{ModelMetadataResponse, ServerMetadataResponse};

#[derive(Serialize)]
struct Server<'a> {
    name: &'a str,
    version: &'a str,
    extensions: &'a [String],
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    versions: &'a [String],
    platform: &'a str,
    inputs: Vec<Tensor<'a>>,
    outputs: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [i64],
}

/// The server's metadata as JSON.
#[must_use]
pub fn server_metadata_json(metadata: &ServerMetadataResponse) -> String {
    let ServerMetadataResponse { name, version, extensions } = metadata;
    super::render(&Server { name, version, extensions })
}

/// A model's metadata as JSON.
#[must_use]
pub fn model_metadata_json(metadata: &ModelMetadataResponse) -> String {
    let ModelMetadataResponse { name, versions, platform, inputs, outputs } = metadata;
    super::render(&Model { name, versions, platform, inputs: tensors(inputs), outputs: tensors(outputs) })
}

fn tensors(list: &[TensorMetadata]) -> Vec<Tensor<'_>> {
    list.iter().map(|TensorMetadata { name, datatype, shape }| Tensor { name, datatype, shape }).collect()
}

#[cfg(test)]
mod tests {
    use super::{model_metadata_json, server_metadata_json};
    use crate::proto::model_metadata_response::TensorMetadata;
    use crate::proto::{ModelMetadataResponse, ServerMetadataResponse};

    #[test]
    fn keys_stand_in_their_order() {
        let server = ServerMetadataResponse {
            name: "triton".into(),
            version: "2.73.0".into(),
            extensions: vec!["classification".into(), "sequence".into()],
        };
        assert_eq!(
            server_metadata_json(&server),
            r#"{"name":"triton","version":"2.73.0","extensions":["classification","sequence"]}"#
        );
        let model = ModelMetadataResponse {
            name: "simple".into(),
            versions: vec!["1".into(), "3".into()],
            platform: "add_sub".into(),
            inputs: vec![TensorMetadata { name: "I".into(), datatype: "INT32".into(), shape: vec![-1, 16] }],
            outputs: vec![],
        };
        assert_eq!(
            model_metadata_json(&model),
            r#"{"name":"simple","versions":["1","3"],"platform":"add_sub","inputs":[{"name":"I","datatype":"INT32","shape":[-1,16]}],"outputs":[]}"#
        );
    }
}
