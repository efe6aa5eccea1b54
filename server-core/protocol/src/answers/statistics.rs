//! `GET /v2/models/stats` and its forms for one model and one version.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::proto;

#[derive(Serialize)]
struct All<'a> {
    model_stats: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Inference,
    response_stats: Responses<'a>,
    batch_stats: Vec<Batch>,
    memory_usage: Vec<Memory<'a>>,
}

#[derive(Serialize)]
struct Inference {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Serialize)]
struct Response {
    compute_infer: Duration,
    compute_output: Duration,
    success: Duration,
    fail: Duration,
    empty_response: Duration,
    cancel: Duration,
}

#[derive(Serialize)]
struct Batch {
    batch_size: u64,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

#[derive(Serialize)]
struct Memory<'a> {
    r#type: &'a str,
    id: i64,
    byte_size: u64,
}

#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

/// Keyed by the response's index as text, written in the order of the numbers.
struct Responses<'a>(Vec<(&'a str, &'a proto::InferResponseStatistics)>);

impl Serialize for Responses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, stats) in &self.0 {
            map.serialize_entry(index, &response(stats))?;
        }
        map.end()
    }
}

/// Statistics as JSON.
#[must_use]
pub fn statistics_json(statistics: &proto::ModelStatisticsResponse) -> String {
    super::render(&All { model_stats: statistics.model_stats.iter().map(model).collect() })
}

fn model(m: &proto::ModelStatistics) -> Model<'_> {
    let mut responses: Vec<_> =
        m.response_stats.iter().map(|(index, stats)| (index.as_str(), stats)).collect();
    responses.sort_by_key(|(index, _)| index.parse::<u64>().unwrap_or(u64::MAX));
    Model {
        name: &m.name,
        version: &m.version,
        last_inference: m.last_inference,
        inference_count: m.inference_count,
        execution_count: m.execution_count,
        inference_stats: inference(&m.inference_stats.unwrap_or_default()),
        response_stats: Responses(responses),
        batch_stats: m.batch_stats.iter().map(batch).collect(),
        memory_usage: m.memory_usage.iter().map(memory).collect(),
    }
}

fn inference(s: &proto::InferStatistics) -> Inference {
    Inference {
        success: duration(s.success),
        fail: duration(s.fail),
        queue: duration(s.queue),
        compute_input: duration(s.compute_input),
        compute_infer: duration(s.compute_infer),
        compute_output: duration(s.compute_output),
        cache_hit: duration(s.cache_hit),
        cache_miss: duration(s.cache_miss),
    }
}

fn response(s: &proto::InferResponseStatistics) -> Response {
    Response {
        compute_infer: duration(s.compute_infer),
        compute_output: duration(s.compute_output),
        success: duration(s.success),
        fail: duration(s.fail),
        empty_response: duration(s.empty_response),
        cancel: duration(s.cancel),
    }
}

fn batch(s: &proto::InferBatchStatistics) -> Batch {
    Batch {
        batch_size: s.batch_size,
        compute_input: duration(s.compute_input),
        compute_infer: duration(s.compute_infer),
        compute_output: duration(s.compute_output),
    }
}

fn memory(m: &proto::MemoryUsage) -> Memory<'_> {
    Memory { r#type: &m.r#type, id: m.id, byte_size: m.byte_size }
}

fn duration(d: Option<proto::StatisticDuration>) -> Duration {
    let d = d.unwrap_or_default();
    Duration { count: d.count, ns: d.ns }
}

#[cfg(test)]
mod tests {
    use super::statistics_json;
    use crate::proto;

    #[test]
    fn keys_stand_in_their_order_and_responses_by_number() {
        let two = Some(proto::StatisticDuration { count: 2, ns: 30 });
        let model = proto::ModelStatistics {
            name: "m".into(),
            version: "1".into(),
            last_inference: 5,
            inference_count: 2,
            execution_count: 1,
            inference_stats: Some(proto::InferStatistics { success: two, ..Default::default() }),
            batch_stats: vec![proto::InferBatchStatistics {
                batch_size: 2,
                compute_infer: two,
                ..Default::default()
            }],
            memory_usage: vec![proto::MemoryUsage { r#type: "CPU".into(), id: -1, byte_size: 9 }],
            response_stats: ["10", "2"].map(|i| (i.into(), proto::InferResponseStatistics::default())).into(),
        };
        let text = statistics_json(&proto::ModelStatisticsResponse { model_stats: vec![model] });
        let zero = r#"{"count":0,"ns":0}"#;
        let short = text.replace(zero, "0");
        expect_test::expect![[r#"{"model_stats":[{"name":"m","version":"1","last_inference":5,"inference_count":2,"execution_count":1,"inference_stats":{"success":{"count":2,"ns":30},"fail":0,"queue":0,"compute_input":0,"compute_infer":0,"compute_output":0,"cache_hit":0,"cache_miss":0},"response_stats":{"2":{"compute_infer":0,"compute_output":0,"success":0,"fail":0,"empty_response":0,"cancel":0},"10":{"compute_infer":0,"compute_output":0,"success":0,"fail":0,"empty_response":0,"cancel":0}},"batch_stats":[{"batch_size":2,"compute_input":0,"compute_infer":{"count":2,"ns":30},"compute_output":0}],"memory_usage":[{"type":"CPU","id":-1,"byte_size":9}]}]}"#]]
        .assert_eq(&short);
    }
}
