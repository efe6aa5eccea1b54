//! `POST /v2/repository/index`: a bare array; what a model does not have is left out.

use serde::Serialize;

use crate::proto::RepositoryIndexResponse;
use crate::proto::repository_index_response::ModelIndex;

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// The repository index as JSON.
#[must_use]
pub fn index_json(index: &RepositoryIndexResponse) -> String {
    let entries = index.models.iter();
    let entries =
        entries.map(|ModelIndex { name, version, state, reason }| Entry { name, version, state, reason });
    super::render(&entries.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use crate::proto::RepositoryIndexResponse;
    use crate::proto::repository_index_response::ModelIndex;

    #[test]
    fn absent_fields_are_left_out() {
        let whole = ModelIndex {
            name: "a".into(),
            version: "1".into(),
            state: "UNAVAILABLE".into(),
            reason: "no \"backend\"".into(),
        };
        let never_loaded = ModelIndex { name: "b".into(), ..Default::default() };
        let index = RepositoryIndexResponse { models: vec![whole, never_loaded] };
        assert_eq!(
            super::index_json(&index),
            r#"[{"name":"a","version":"1","state":"UNAVAILABLE","reason":"no \"backend\""},{"name":"b"}]"#
        );
        assert_eq!(super::index_json(&RepositoryIndexResponse::default()), "[]");
    }
}
