//! How sequences begin and end, on the direct strategy; the rules are the same for both.

use expect_test::expect;
use trireme_scheduling::{
    Ask, CorrelationId, DirectSequenceConfig, DirectSequences, Dispatcher, InstanceId, InstanceSlots,
    MAX_CORRELATION_ID_LEN, OldestSequenceConfig, OldestSequences, Refusal, RequestId, RequestInfo,
    SequenceStep, ShapeKey, Time,
};

use crate::script::check;

#[test]
fn a_sequence_begins_with_start() {
    check(
        "rows max=4 instances=1
         0ms    arrive A seq=7
         1ms    arrive B seq=user-3
         2ms    arrive C seq=user-3 is=start
         3ms    free 0
         4ms    arrive D seq=user-3",
        expect![[r#"
            0ms     A refused: inference request for sequence 7 to model 'm' must specify the START flag on the first request of the sequence
            1ms     B refused: inference request for sequence user-3 to model 'm' must specify the START flag on the first request of the sequence
            2ms     #0 runs C^
            2ms     sleeps until 1002ms
            4ms     #0 runs D
            4ms     sleeps until 1004ms
        "#]],
    );
}

#[test]
fn zero_and_the_empty_text_are_no_ids() {
    check(
        "rows max=4 instances=1
         0ms    arrive A seq=0 is=start
         1ms    arrive B seq= is=start
         2ms    arrive C",
        expect![[r#"
            0ms     A refused: inference request to model 'm' must specify a non-zero or non-empty correlation ID
            1ms     B refused: inference request to model 'm' must specify a non-zero or non-empty correlation ID
            2ms     C refused: inference request to model 'm' must specify a non-zero or non-empty correlation ID
        "#]],
    );
}

#[test]
fn a_request_of_a_sequence_is_a_batch_of_one() {
    check(
        "rows max=4 instances=1
         0ms    arrive A seq=1 is=start size=2
         1ms    arrive B seq=1",
        expect![[r#"
            0ms     A refused: inference request to model 'm' must specify batch-size 1 due to requirements of sequence batcher
            1ms     B refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
        "#]],
    );
}

#[test]
fn a_start_of_a_running_sequence_goes_on_in_its_slot() {
    check(
        "rows max=2 instances=1
         0ms    arrive A1 A2 seq=1 is=start
         1ms    arrive A3 A4 seq=1 is=start,end
         10ms   free 0
         20ms   free 0
         30ms   free 0
         40ms   look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            10ms    #0 runs A2
            20ms    #0 runs A3^
            30ms    #0 runs A4$
            40ms    pending 0, oldest 0ms, unfinished 4, drained false
            40ms    open sequences 0, retired []
        "#]],
    );
}

#[test]
fn after_its_end_the_id_begins_a_new_sequence_though_the_old_one_still_waits() {
    check(
        "rows max=2 instances=1
         0ms    arrive A1..A3 seq=1 is=start,end
         1ms    arrive A4 seq=1
         2ms    arrive B1 B2 seq=1 is=start
         10ms   free 0
         20ms   free 0
         30ms   arrive B3 seq=1
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            1ms     A4 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            2ms     sleeps until 1002ms
            10ms    #0 runs A2 B1^
            20ms    #0 runs A3$ B2
            30ms    sleeps until 1030ms
            40ms    #0 runs - B3
        "#]],
    );
}

#[test]
fn in_the_backlog_an_id_may_stand_twice() {
    check(
        "rows max=1 instances=1
         0ms    arrive X seq=9 is=start
         1ms    arrive A1 A2 seq=1 is=start,end
         2ms    arrive B1 seq=1 is=start
         3ms    arrive B2 seq=1
         4ms    arrive Y seq=9 is=end
         10ms   free 0
         20ms   free 0
         30ms   free 0
         40ms   free 0
         50ms   free 0",
        expect![[r#"
            0ms     #0 runs X^
            0ms     sleeps until 1000ms
            10ms    #0 runs Y$
            20ms    #0 runs A1^
            30ms    #0 runs A2$
            30ms    sleeps until 1030ms
            40ms    #0 runs B1^
            50ms    #0 runs B2
        "#]],
    );
}

#[test]
fn an_idle_sequence_frees_its_slot_and_is_refused_without_start() {
    check(
        "rows max=1 idle=100ms instances=1
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         10ms   free 0
         50ms   arrive A2 seq=1
         60ms   free 0
         200ms  arrive A3 seq=1
         210ms  free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 100ms
            50ms    #0 runs A2
            50ms    sleeps until 150ms
            150ms   #0 runs B1^
            150ms   sleeps until 250ms
            200ms   A3 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
        "#]],
    );
}

#[test]
fn a_request_at_the_last_moment_keeps_the_sequence() {
    check(
        "rows max=1 idle=100ms instances=1
         0ms    arrive A1 seq=1 is=start
         99ms   arrive A2 seq=1
         100ms  look
         199ms  look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 100ms
            99ms    sleeps until 199ms
            100ms   pending 1, oldest 1ms, unfinished 1, drained false
            100ms   open sequences 1, retired []
            199ms   pending 1, oldest 100ms, unfinished 1, drained false
            199ms   open sequences 0, retired []
            at the end 1 queued
        "#]],
    );
}

#[test]
fn what_waits_of_an_idle_sequence_still_runs() {
    check(
        "rows max=1 idle=100ms instances=1
         0ms    arrive A1..A3 seq=1 is=start
         150ms  free 0
         151ms  arrive A4 seq=1 is=start
         160ms  free 0
         170ms  free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 100ms
            150ms   #0 runs A2
            160ms   #0 runs A3
            160ms   sleeps until 260ms
            170ms   #0 runs A4^
        "#]],
    );
}

#[test]
fn in_the_backlog_nobody_is_idle() {
    check(
        "rows max=1 idle=100ms instances=1
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         90ms   arrive A2 seq=1
         180ms  arrive A3 seq=1 is=end
         200ms  free 0
         210ms  free 0
         220ms  free 0
         250ms  look
         319ms  look
         320ms  look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 100ms
            90ms    sleeps until 190ms
            200ms   #0 runs A2
            210ms   #0 runs A3$
            210ms   sleeps until 310ms
            220ms   #0 runs B1^
            250ms   pending 0, oldest 0ms, unfinished 4, drained false
            250ms   open sequences 1, retired []
            319ms   pending 0, oldest 0ms, unfinished 4, drained false
            319ms   open sequences 0, retired []
            320ms   pending 0, oldest 0ms, unfinished 4, drained false
            320ms   open sequences 0, retired []
        "#]],
    );
}

#[test]
fn a_timeout_counts_in_the_backlog_only_and_takes_the_whole_sequence() {
    check(
        "rows max=1 instances=1
         0ms    arrive A1 A2 seq=1 is=start timeout=20ms
         1ms    arrive B1 seq=2 is=start
         2ms    arrive B2 seq=2 timeout=50ms
         3ms    arrive C1 seq=3 is=start timeout=900ms
         60ms   arrive B3 seq=2
         70ms   free 0
         80ms   look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            2ms     sleeps until 52ms
            52ms    B1 left: timeout of the corresponding sequence has been expired
            52ms    B2 left: timeout of the corresponding sequence has been expired
            52ms    sleeps until 903ms
            60ms    B3 refused: inference request for sequence 2 to model 'm' must specify the START flag on the first request of the sequence
            70ms    #0 runs A2
            80ms    pending 1, oldest 77ms, unfinished 2, drained false
            80ms    open sequences 2, retired []
            903ms   C1 left: timeout of the corresponding sequence has been expired
            903ms   sleeps until 1000ms
        "#]],
    );
}

#[test]
fn who_leaves_the_backlog_in_time_has_no_timeout_any_more() {
    check(
        "rows max=1 instances=1 idle=900ms
         0ms    arrive A1 seq=1 is=start,end
         1ms    arrive B1 seq=2 is=start timeout=20ms
         10ms   arrive A2 seq=1 is=start timeout=500ms
         100ms  free 0",
        expect![[r#"
            0ms     #0 runs A1^$
            1ms     sleeps until 901ms
            10ms    sleeps until 510ms
            100ms   #0 runs B1^
            510ms   A2 left: timeout of the corresponding sequence has been expired
            510ms   sleeps until 901ms
        "#]],
    );
}

#[test]
fn a_cancelled_request_takes_those_behind_it_along() {
    check(
        "rows max=2 instances=1
         0ms    arrive A1..A5 seq=1 is=start,end
         1ms    arrive B1 seq=2 is=start
         5ms    cancel A3
         10ms   free 0
         20ms   free 0
         30ms   arrive C1 seq=3 is=start
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            1ms     sleeps until 1001ms
            5ms     A3 cancelled
            5ms     A4 left: the sequence of this request was cancelled
            5ms     A5 left: the sequence of this request was cancelled
            10ms    #0 runs A2 B1^
            30ms    #0 runs C1^
            1001ms  sleeps until 1030ms
        "#]],
    );
}

#[test]
fn a_cancelled_sequence_may_be_started_again() {
    check(
        "rows max=2 instances=1
         0ms    arrive A1 A2 seq=1 is=start
         5ms    cancel A2
         6ms    arrive A3 seq=1
         7ms    arrive A4 seq=1 is=start
         10ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            5ms     A2 cancelled
            6ms     A3 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            7ms     sleeps until 1007ms
            10ms    #0 runs A4^
        "#]],
    );
}

#[test]
fn in_the_backlog_a_cancelled_request_takes_all_along() {
    check(
        "rows max=1 instances=1
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1..B3 seq=2 is=start
         2ms    arrive C1 seq=3 is=start
         5ms    cancel B2
         6ms    arrive B4 seq=2
         10ms   cancel A1
         20ms   arrive A2 seq=1 is=end
         30ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            5ms     B2 cancelled
            5ms     B1 left: the sequence of this request was cancelled
            5ms     B3 left: the sequence of this request was cancelled
            6ms     B4 refused: inference request for sequence 2 to model 'm' must specify the START flag on the first request of the sequence
            10ms    A1 is not queued
            30ms    #0 runs A2$
            30ms    sleeps until 1030ms
            40ms    #0 runs C1^
        "#]],
    );
}

#[test]
fn an_expired_request_takes_those_behind_it_along() {
    check(
        "rows max=1 instances=1
         0ms    arrive A1 A2 seq=1 is=start
         1ms    arrive A3 seq=1 deadline=50ms
         2ms    arrive A4 seq=1
         3ms    arrive B1 seq=2 is=start
         60ms   free 0
         70ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            1ms     sleeps until 50ms
            50ms    A3 expired
            50ms    A4 left: timeout of the corresponding sequence has been expired
            60ms    #0 runs A2
            60ms    sleeps until 1060ms
            70ms    #0 runs B1^
        "#]],
    );
}

#[test]
fn sequences_that_have_begun_go_on_after_close() {
    check(
        "rows max=1 instances=1 idle=100ms
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         2ms    close
         3ms    arrive C1 seq=3 is=start
         4ms    arrive A2 seq=1 is=end
         5ms    arrive B2 seq=2
         10ms   free 0
         20ms   free 0
         30ms   free 0
         40ms   free 0
         40ms   finish 0
         40ms   finish 0
         40ms   finish 0
         40ms   finish 0
         50ms   look
         150ms  look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 100ms
            3ms     C1 refused: the model is being unloaded and takes no new requests
            10ms    #0 runs A2$
            10ms    sleeps until 110ms
            20ms    #0 runs B1^
            30ms    #0 runs B2
            50ms    pending 0, oldest 0ms, unfinished 0, drained false
            50ms    open sequences 1, retired []
            150ms   pending 0, oldest 0ms, unfinished 0, drained true
            150ms   open sequences 0, retired []
        "#]],
    );
}

#[test]
fn a_failed_instance_loses_its_sequences_and_gets_new_ones_when_it_is_back() {
    check(
        "rows max=1 instances=2
         0ms    arrive A1 A2 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         2ms    arrive C1 seq=3 is=start
         10ms   down 0
         20ms   arrive A3 seq=1
         30ms   free 1
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            1ms     #1 runs B1^
            10ms    A2 left: the instance that held the state of this sequence failed; start the sequence again
            10ms    sleeps until 1001ms
            20ms    A3 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            40ms    #0 runs C1^
            1001ms  sleeps until 1040ms
        "#]],
    );
}

#[test]
fn a_retired_instance_ends_its_sequences_and_gets_no_new_ones() {
    check(
        "rows max=1 instances=2
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         2ms    retire 0
         3ms    arrive C1 seq=3 is=start
         4ms    add
         10ms   free 0
         11ms   arrive A2 seq=1 is=end
         12ms   look
         20ms   finish 0
         20ms   finish 0
         21ms   look",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            1ms     #1 runs B1^
            4ms     #2 runs C1^
            11ms    #0 runs A2$
            11ms    sleeps until 1001ms
            12ms    pending 0, oldest 0ms, unfinished 4, drained false
            12ms    open sequences 2, retired []
            21ms    pending 0, oldest 0ms, unfinished 2, drained false
            21ms    open sequences 2, retired [0]
            1001ms  sleeps until 1004ms
        "#]],
    );
}

#[test]
fn a_free_slot_of_a_retired_instance_is_gone() {
    check(
        "rows max=1 instances=2
         0ms    retire 0
         1ms    arrive A1 seq=1 is=start
         2ms    arrive B1 seq=2 is=start
         3ms    look",
        expect![[r#"
            1ms     #1 runs A1^
            1ms     sleeps until 1001ms
            3ms     pending 1, oldest 1ms, unfinished 1, drained false
            3ms     open sequences 2, retired [0]
            1001ms  sleeps until 2001ms
            at the end 1 queued
        "#]],
    );
}

#[test]
fn an_id_of_a_request_that_waits_is_refused_and_begins_no_sequence() {
    let config = DirectSequenceConfig::new(4, 0, 0, 0.0).unwrap();
    let mut model = Dispatcher::new(DirectSequences::new(config), InstanceSlots::new(1, None));
    let info = RequestInfo::new(RequestId(3), ShapeKey(0), Time(1));
    let start = |number| SequenceStep { correlation: CorrelationId::Number(number), start: true, end: false };
    assert_eq!(model.on_sequence_arrival(info, start(1)), Ok(()));
    assert_eq!(model.on_sequence_arrival(info, start(2)), Err(Refusal::DuplicateId));
    assert_eq!((model.pending(), model.open_sequences()), (1, 1));
}

#[test]
fn an_id_in_text_has_a_limit() {
    let config = OldestSequenceConfig::new(4, 0, 0, &[], 0).unwrap();
    let mut model = Dispatcher::new(OldestSequences::new(config), InstanceSlots::new(1, None));
    let info = |id| RequestInfo::new(RequestId(id), ShapeKey(0), Time(1));
    let start = |len| SequenceStep {
        correlation: CorrelationId::Text("x".repeat(len).into()),
        start: true,
        end: false,
    };
    assert_eq!(model.on_sequence_arrival(info(1), start(MAX_CORRELATION_ID_LEN)), Ok(()));
    let refusal = model.on_sequence_arrival(info(2), start(MAX_CORRELATION_ID_LEN + 1));
    assert_eq!(refusal, Err(Refusal::CorrelationIdTooLong));
}

#[test]
fn an_instance_that_asks_is_told_to_go_when_it_is_retired_and_empty() {
    let config = DirectSequenceConfig::new(1, 0, 0, 0.0).unwrap();
    let mut model = Dispatcher::new(DirectSequences::new(config), InstanceSlots::new(1, None));
    let (mut batch, mut expired) = (Vec::new(), Vec::new());
    let info = |id| RequestInfo::new(RequestId(id), ShapeKey(0), Time(id));
    let step = |start| SequenceStep { correlation: CorrelationId::Number(1), start, end: !start };
    assert_eq!(model.on_sequence_arrival(info(1), step(true)), Ok(()));
    model.retire_instance(InstanceId(0));
    assert_eq!(model.take_batch(InstanceId(0), Time(2), &mut batch, &mut expired), Ask::Batch(1));
    assert!(matches!(model.take_batch(InstanceId(0), Time(3), &mut batch, &mut expired), Ask::WakeAt(_)));
    assert_eq!(model.on_sequence_arrival(info(4), step(false)), Ok(()));
    assert_eq!(model.take_batch(InstanceId(0), Time(5), &mut batch, &mut expired), Ask::Batch(1));
    assert_eq!(model.take_batch(InstanceId(0), Time(6), &mut batch, &mut expired), Ask::Closed);
}

#[test]
fn an_instance_that_is_back_and_asks_gets_what_waits_in_the_backlog() {
    let config = DirectSequenceConfig::new(1, 0, 0, 0.0).unwrap();
    let mut model = Dispatcher::new(DirectSequences::new(config), InstanceSlots::new(1, None));
    let (mut batch, mut expired) = (Vec::new(), Vec::new());
    let step = SequenceStep { correlation: CorrelationId::Number(1), start: true, end: false };
    model.on_instance_down(InstanceId(0));
    assert_eq!(model.on_sequence_arrival(RequestInfo::new(RequestId(1), ShapeKey(0), Time(1)), step), Ok(()));
    assert_eq!(model.take_batch(InstanceId(0), Time(2), &mut batch, &mut expired), Ask::Batch(1));
}
