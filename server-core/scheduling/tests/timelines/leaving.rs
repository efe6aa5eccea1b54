//! The other ways out: deadlines, cancellation, refusal; and the drain.

use expect_test::expect;
use trireme_scheduling::{
    Direct, Dispatcher, InstanceSlots, Refusal, RequestId, RequestInfo, ShapeKey, Time,
};

use crate::script::check;

#[test]
fn an_expired_request_leaves_although_every_instance_is_busy() {
    check(
        "direct instances=1
         0ms    arrive A
         1ms    arrive B deadline=30ms
         1ms    arrive C
         50ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            1ms     sleeps until 30ms
            30ms    B expired
            50ms    #0 runs C
        "#]],
    );
}

#[test]
fn a_deadline_before_the_end_of_the_delay_wakes_first() {
    check(
        "dynamic max=8 delay=100ms instances=1
         0ms    arrive A deadline=40ms
         10ms   arrive B",
        expect![[r#"
            0ms     sleeps until 40ms
            40ms    A expired
            40ms    sleeps until 110ms
            110ms   #0 runs B
        "#]],
    );
}

#[test]
fn the_deadline_itself_is_too_late() {
    check(
        "direct instances=1
         0ms    arrive A
         1ms    arrive B deadline=30ms
         1ms    arrive C deadline=31ms
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            1ms     sleeps until 30ms
            30ms    B expired
            30ms    sleeps until 31ms
            30ms    #0 runs C
        "#]],
    );
}

#[test]
fn a_deadline_in_the_past_expires_at_once() {
    check(
        "direct instances=1
         50ms   arrive A deadline=20ms",
        expect![[r#"
            50ms    A expired
        "#]],
    );
}

#[test]
fn a_deadline_of_a_request_that_left_wakes_nobody() {
    check(
        "dynamic max=4 instances=1
         0ms    arrive A deadline=40ms
         1ms    arrive B deadline=50ms
         2ms    cancel B",
        expect![[r#"
            0ms     #0 runs A
            1ms     sleeps until 50ms
            2ms     B cancelled
        "#]],
    );
}

#[test]
fn a_cancelled_request_leaves_the_queue_but_not_an_instance() {
    check(
        "dynamic max=4 instances=1
         0ms    arrive A
         1ms    arrive B C D
         2ms    cancel C
         3ms    cancel A C
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            2ms     C cancelled
            3ms     A is not queued
            3ms     C is not queued
            20ms    #0 runs B D
        "#]],
    );
}

#[test]
fn when_the_oldest_is_cancelled_the_delay_counts_from_the_next() {
    check(
        "dynamic max=4 delay=100ms instances=1
         0ms    arrive A
         30ms   arrive B
         50ms   cancel A",
        expect![[r#"
            0ms     sleeps until 100ms
            50ms    A cancelled
            50ms    sleeps until 130ms
            130ms   #0 runs B
        "#]],
    );
}

#[test]
fn a_request_above_the_limit_is_refused() {
    check(
        "dynamic max=4 instances=1
         0ms    arrive A size=5",
        expect![[r#"
            0ms     A refused: a request of 5 elements is larger than the model's max_batch_size of 4; split it
        "#]],
    );
}

#[test]
fn after_close_the_queue_runs_without_waiting_for_company() {
    check(
        "dynamic max=4 delay=100ms instances=1
         0ms    arrive A B
         10ms   close
         11ms   arrive C
         12ms   look
         20ms   free 0
         20ms   finish 0
         20ms   finish 0
         21ms   look",
        expect![[r#"
            0ms     sleeps until 100ms
            10ms    #0 runs A B
            11ms    C refused: the model is being unloaded and takes no new requests
            12ms    pending 0, oldest 0ms, unfinished 2, drained false
            21ms    pending 0, oldest 0ms, unfinished 0, drained true
        "#]],
    );
}

#[test]
fn the_gauges_count_what_no_instance_has_taken() {
    check(
        "direct instances=1
         0ms    arrive A
         10ms   arrive B C
         25ms   look",
        expect![[r#"
            0ms     #0 runs A
            25ms    pending 2, oldest 15ms, unfinished 1, drained false
            at the end 2 queued
        "#]],
    );
}

#[test]
fn an_id_that_is_queued_is_refused_and_its_owner_stays() {
    let mut model = Dispatcher::new(Direct::new(), InstanceSlots::default());
    let info = RequestInfo::new(RequestId(3), ShapeKey(0), Time(1));
    assert_eq!(model.on_arrival(info), Ok(()));
    assert_eq!(model.on_arrival(info), Err(Refusal::DuplicateId));
    assert_eq!(model.pending(), 1);
    assert!(model.on_cancel(RequestId(3)));
    assert_eq!(model.on_arrival(info), Ok(()));
}
