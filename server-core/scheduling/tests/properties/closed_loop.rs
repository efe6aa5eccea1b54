//! Clients that each wait for their answer before they ask again, on virtual time.

use std::collections::{BTreeMap, BTreeSet};

use trireme_scheduling::{
    Actions, Dispatcher, Dynamic, DynamicConfig, InstanceId, InstanceSlots, RequestId, RequestInfo, ShapeKey,
    Time,
};

/// Runs `clients` against one model whose execution takes 20 ms; batch size to number of executions.
fn histogram(clients: u64, instances: u32, executions: usize) -> BTreeMap<usize, usize> {
    let config = DynamicConfig::new(32, &[4, 8, 16, 32], 0).unwrap();
    let mut dispatcher = Dispatcher::new(Dynamic::new(config), InstanceSlots::new(instances, None));
    let mut actions = Actions::new();
    let mut running: BTreeMap<(Time, InstanceId), Vec<RequestId>> = BTreeMap::new();
    let mut histogram = BTreeMap::new();
    let mut next_id = 0..;
    // Clients come one by one, a microsecond apart, as they do over a network.
    let mut arrivals: BTreeSet<(Time, u64)> =
        (0..clients).map(|client| (Time(client * 1_000), client)).collect();
    let mut seen = 0;
    while seen < executions {
        let arrival = arrivals.first().map(|&(time, _)| time);
        let done = running.first_key_value().map(|(&(time, _), _)| time);
        let now = [arrival, done].into_iter().flatten().min().expect("clients or executions");
        if Some(now) == done {
            let ((_, instance), batch) = running.pop_first().expect("an execution");
            for (offset, id) in batch.iter().enumerate() {
                assert!(dispatcher.on_request_finished(instance));
                arrivals.insert((now.after_us(offset as u64 + 1), id.0));
            }
            dispatcher.on_instance_free(instance);
        } else {
            arrivals.pop_first();
            let id = RequestId(next_id.next().expect("endless"));
            dispatcher.on_arrival(RequestInfo::new(id, ShapeKey(0), now)).expect("open");
        }
        dispatcher.poll(now, &mut actions);
        for (instance, batch) in actions.batches() {
            *histogram.entry(batch.len()).or_default() += 1;
            running.insert((now.after_us(20_000), instance), batch.to_vec());
            seen += 1;
        }
    }
    histogram
}

fn mean(histogram: &BTreeMap<usize, usize>) -> f64 {
    let executions: usize = histogram.values().sum();
    histogram.iter().map(|(size, count)| size * count).sum::<usize>() as f64 / executions as f64
}

#[test]
fn sixty_four_clients_fill_the_batches_of_one_instance() {
    let histogram = histogram(64, 1, 200);
    assert!(mean(&histogram) >= 16.0, "{histogram:?}");
}

#[test]
fn three_instances_share_the_load() {
    let histogram = histogram(96, 3, 300);
    assert!(mean(&histogram) >= 8.0, "{histogram:?}");
}
