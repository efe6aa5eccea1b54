//! The witness says what is wrong with a history that breaks a promise, and nothing about one that keeps
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use trireme_scheduling::invariants::{Rules, Strategy, Violation, Witness};
use trireme_scheduling::{
    CorrelationId, InstanceId, Policies, QueuePolicy, Refusal, RequestId, RequestInfo, Row, SequenceStep,
    ShapeKey, Time, TimeoutAction,
};

const ZERO: InstanceId = InstanceId(0);

fn witness(strategy: Strategy, policies: Policies) -> Witness {
    Witness::new(Rules { strategy, max_batch_size: 4, policies, max_in_flight: Some(6) })
}

fn queue() -> Witness {
    witness(Strategy::Dynamic, Policies::default())
}

fn info(id: u64) -> RequestInfo {
    RequestInfo::new(RequestId(id), ShapeKey(0), Time(id))
}

fn ids(ids: &[u64]) -> Vec<RequestId> {
    ids.iter().copied().map(RequestId).collect()
}

fn arrive(witness: &mut Witness, numbers: &[u64]) {
    numbers.iter().for_each(|&id| witness.on_arrival(&info(id), None, &Ok(())).unwrap());
}

fn batch(witness: &mut Witness, numbers: &[u64]) -> Result<(), Violation> {
    witness.on_batch(ZERO, &ids(numbers), &[], Time(100))
}

#[test]
fn a_request_leaves_once() {
    let mut queue = queue();
    arrive(&mut queue, &[1, 2, 3]);
    assert_eq!(batch(&mut queue, &[1, 2]), Ok(()));
    assert_eq!(batch(&mut queue, &[2]), Err(Violation::LeftTwice(RequestId(2))));
    assert_eq!(queue.on_cancelled(RequestId(1)), Err(Violation::LeftTwice(RequestId(1))));
    assert_eq!(queue.on_dropped(RequestId(9)), Err(Violation::LeftTwice(RequestId(9))));
    assert_eq!(queue.check_empty(), Err(Violation::Lost(RequestId(3))));
    assert_eq!(queue.on_arrival(&info(3), None, &Ok(())), Err(Violation::TakenTwice(RequestId(3))));
}

#[test]
fn a_batch_is_within_its_limits() {
    let mut queue = queue();
    arrive(&mut queue, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(batch(&mut queue, &[]), Err(Violation::EmptyBatch));
    assert_eq!(batch(&mut queue, &[1, 2, 3, 4, 5]), Err(Violation::TooLarge { size: 5, max: 4 }));
    assert_eq!(batch(&mut queue, &[6, 7, 8]), Ok(()));
    assert_eq!(queue.on_done(ZERO, RequestId(6)), Ok(()));

    let mut queue = self::queue();
    let odd = RequestInfo { shape_key: ShapeKey(1), ..info(2) };
    arrive(&mut queue, &[1]);
    queue.on_arrival(&odd, None, &Ok(())).unwrap();
    assert_eq!(batch(&mut queue, &[1, 2]), Err(Violation::ShapesMixed(RequestId(2))));

    let mut queue = self::queue();
    arrive(&mut queue, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(batch(&mut queue, &[1, 2, 3, 4]), Ok(()));
    assert_eq!(batch(&mut queue, &[5, 6, 7]), Err(Violation::HoldsTooMuch(ZERO)));
}

#[test]
fn nobody_is_overtaken_but_by_policy() {
    let delay = QueuePolicy {
        timeout_action: TimeoutAction::Delay,
        default_timeout_microseconds: 1,
        allow_timeout_override: false,
        max_queue_size: 2,
    };
    let policies = Policies::new(2, 2, QueuePolicy::default(), [(1, delay)]).unwrap();
    let mut queue = witness(Strategy::Dynamic, policies);
    let at = |id, priority, time| RequestInfo { priority, arrival: Time(time), ..info(id) };
    for info in [at(1, 2, 0), at(2, 1, 0), at(3, 1, 5_000)] {
        queue.on_arrival(&info, None, &Ok(())).unwrap();
    }
    let full = Err(Refusal::QueueFull { max: 2 });
    assert_eq!(queue.on_arrival(&at(4, 1, 5_000), None, &full), Ok(()));
    assert_eq!(
        queue.on_arrival(&at(4, 2, 5_000), None, &full),
        Err(Violation::RefusedInSpiteOfRoom(RequestId(4)))
    );
    // At 5 µs request 2 is late: 3 is first, then 2, then the lower level.
    let overtaken = |by| Err(Violation::Overtaken { overtaken: RequestId(3), by: RequestId(by) });
    assert_eq!(queue.on_batch(ZERO, &ids(&[1]), &[], Time(5_000)), overtaken(1));
    assert_eq!(queue.on_batch(ZERO, &ids(&[2]), &[], Time(5_000)), overtaken(2));
    assert_eq!(queue.on_batch(ZERO, &ids(&[3, 2, 1]), &[], Time(5_000)), Ok(()));
}

#[test]
fn ends_are_kept() {
    let mut queue = queue();
    for id in [1, 2, 3] {
        queue.on_arrival(&RequestInfo { deadline: Some(Time(50 * id)), ..info(id) }, None, &Ok(())).unwrap();
    }
    assert_eq!(queue.next_end(), Some(Time(50)));
    assert_eq!(queue.check_due(Time(49)), Ok(()));
    assert_eq!(queue.check_due(Time(50)), Err(Violation::KeptTooLong(RequestId(1))));
    assert_eq!(queue.on_batch(ZERO, &ids(&[1]), &[], Time(50)), Err(Violation::RanTooLate(RequestId(1))));
    assert_eq!(queue.on_expired(RequestId(2), Time(99)), Err(Violation::ExpiredTooEarly(RequestId(2))));
    assert_eq!(queue.on_expired(RequestId(3), Time(150)), Ok(()));
}

#[test]
fn after_close_nothing_is_taken() {
    let mut queue = queue();
    queue.on_close();
    assert_eq!(queue.on_arrival(&info(1), None, &Err(Refusal::Closed)), Ok(()));
    assert_eq!(queue.on_arrival(&info(1), None, &Ok(())), Err(Violation::TakenAfterClose(RequestId(1))));
}

/// Sequence 1 is requests 10, 11, …, sequence 2 is 20, 21, …; the first is the START.
fn sequences(strategy: Strategy) -> Witness {
    let mut witness = witness(strategy, Policies::default());
    for id in [10, 20, 11, 21, 12] {
        let step =
            SequenceStep { correlation: CorrelationId::Number(id / 10), start: id % 10 == 0, end: false };
        witness.on_arrival(&info(id), Some(&step), &Ok(())).unwrap();
    }
    witness
}

/// A batch of rows from slot 0 on, 0 is a null request.
fn rows(witness: &mut Witness, instance: u32, rows: &[u64]) -> Result<(), Violation> {
    let row = |(&id, slot)| Row {
        slot,
        request: (id > 0).then_some(RequestId(id)),
        start: id > 0 && id % 10 == 0,
        end: false,
    };
    let rows: Vec<Row> = rows.iter().zip(0..).map(row).collect();
    let batch: Vec<RequestId> = rows.iter().filter_map(|row| row.request).collect();
    witness.on_batch(InstanceId(instance), &batch, &rows, Time(100))
}

#[test]
fn a_sequence_runs_in_order_in_its_slot() {
    let sequences = || sequences(Strategy::DirectSequences);
    let mut good = sequences();
    assert_eq!(rows(&mut good, 0, &[10, 20]), Ok(()));
    assert_eq!(rows(&mut good, 0, &[11, 0]), Ok(()));
    assert_eq!(rows(&mut good, 0, &[12, 21]), Ok(()));

    assert_eq!(rows(&mut sequences(), 0, &[11]), Err(Violation::OutOfOrder(RequestId(11))));
    let mut moved = sequences();
    assert_eq!(rows(&mut moved, 0, &[10]), Ok(()));
    assert_eq!(rows(&mut moved, 1, &[11]), Err(Violation::SlotChanged(RequestId(11))));
    let mut shared = sequences();
    assert_eq!(rows(&mut shared, 0, &[10]), Ok(()));
    assert_eq!(rows(&mut shared, 0, &[20]), Err(Violation::SlotShared(RequestId(20))));
    let mut misplaced = sequences();
    let row = |slot, id| Row { slot, request: Some(RequestId(id)), start: true, end: false };
    let answer = misplaced.on_batch(ZERO, &ids(&[10]), &[row(3, 10)], Time(100));
    assert_eq!(answer, Err(Violation::WrongRows(ZERO)));
}

#[test]
fn what_is_behind_a_cut_does_not_run() {
    let mut cut = sequences(Strategy::DirectSequences);
    assert_eq!(rows(&mut cut, 0, &[10]), Ok(()));
    assert_eq!(cut.on_cancelled(RequestId(11)), Ok(()));
    assert_eq!(rows(&mut cut, 0, &[12]), Err(Violation::RanAfterCut(RequestId(12))));
    let step = SequenceStep { correlation: CorrelationId::Number(1), start: false, end: false };
    assert_eq!(cut.on_arrival(&info(13), Some(&step), &Ok(())), Err(Violation::NotStarted(RequestId(13))));

    let mut lost = sequences(Strategy::DirectSequences);
    assert_eq!(rows(&mut lost, 0, &[10]), Ok(()));
    lost.on_instance_down(ZERO);
    assert_eq!(rows(&mut lost, 0, &[11]), Err(Violation::RanAfterCut(RequestId(11))));
}

#[test]
fn the_oldest_strategy_runs_one_request_of_a_slot_at_a_time() {
    let mut oldest = sequences(Strategy::OldestSequences);
    assert_eq!(rows(&mut oldest, 0, &[10, 20]), Ok(()));
    assert_eq!(oldest.on_done(ZERO, RequestId(10)), Ok(()));
    assert_eq!(rows(&mut oldest, 0, &[11]), Ok(()));
    assert_eq!(rows(&mut oldest, 0, &[12]), Err(Violation::TwoAtATime(RequestId(12))));
}
