//! The counters of a model version in the form of the protocol.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use trireme_protocol::proto;

use crate::model::ModelVersion;
use crate::statistics::{Duration, lock};

fn pair((count, ns): (u64, u64)) -> Option<proto::StatisticDuration> {
    Some(proto::StatisticDuration { count, ns })
}

fn duration(duration: &Duration) -> Option<proto::StatisticDuration> {
    pair(duration.read())
}

pub(crate) fn statistics(model: &ModelVersion) -> proto::ModelStatistics {
    let counted = &model.statistics;
    let batches = lock(&counted.batches);
    let batch_stats = batches.iter().map(|(size, batch)| proto::InferBatchStatistics {
        batch_size: *size,
        compute_input: pair((batch.count, batch.input_ns)),
        compute_infer: pair((batch.count, batch.infer_ns)),
        compute_output: pair((batch.count, batch.output_ns)),
    });
    let responses = lock(&counted.responses);
    let response_stats: BTreeMap<_, _> = responses
        .iter()
        .map(|(index, response)| {
            let stats = proto::InferResponseStatistics {
                compute_infer: pair(response.infer),
                compute_output: pair(response.output),
                success: pair(response.success),
                fail: pair(response.fail),
                empty_response: pair(response.empty),
                cancel: pair(response.cancel),
            };
            (index.to_string(), stats)
        })
        .collect();
    proto::ModelStatistics {
        name: model.name().to_owned(),
        version: model.version().to_string(),
        last_inference: counted.last_inference_ms.load(Relaxed),
        inference_count: counted.inference_count.load(Relaxed),
        execution_count: counted.execution_count.load(Relaxed),
        inference_stats: Some(proto::InferStatistics {
            success: duration(&counted.success),
            fail: duration(&counted.fail),
            queue: duration(&counted.queue),
            compute_input: duration(&counted.compute_input),
            compute_infer: duration(&counted.compute_infer),
            compute_output: duration(&counted.compute_output),
            cache_hit: duration(&counted.cache_hit),
            cache_miss: duration(&counted.cache_miss),
        }),
        batch_stats: batch_stats.collect(),
        memory_usage: Vec::new(),
        response_stats,
    }
}
