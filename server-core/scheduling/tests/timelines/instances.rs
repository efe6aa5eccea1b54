//! Several instances, and instances that hold several requests.

use expect_test::expect;

use crate::script::check;

#[test]
fn three_instances_take_three_batches_at_once() {
    check(
        "dynamic max=4 instances=3
         0ms    arrive R1..R14
         20ms   free 1",
        expect![[r#"
            0ms     #0 runs R1 R2 R3 R4
            0ms     #1 runs R5 R6 R7 R8
            0ms     #2 runs R9 R10 R11 R12
            20ms    #1 runs R13 R14
        "#]],
    );
}

#[test]
fn three_instances_without_a_batcher_run_three_requests_at_once() {
    check(
        "direct instances=3
         0ms    arrive R1..R5
         20ms   free 2
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs R1
            0ms     #1 runs R2
            0ms     #2 runs R3
            20ms    #2 runs R4
            30ms    #0 runs R5
        "#]],
    );
}

#[test]
fn the_longest_idle_instance_is_next() {
    check(
        "direct instances=3
         0ms    arrive A
         1ms    free 0
         2ms    arrive B
         3ms    arrive C
         4ms    arrive D",
        expect![[r#"
            0ms     #0 runs A
            2ms     #1 runs B
            3ms     #2 runs C
            4ms     #0 runs D
        "#]],
    );
}

#[test]
fn a_busy_instance_gets_nothing_until_execute_returns() {
    check(
        "direct instances=1
         0ms    arrive A B
         10ms   finish 0
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            20ms    #0 runs B
        "#]],
    );
}

#[test]
fn an_instance_holds_so_many_requests_as_it_declared() {
    check(
        "dynamic max=8 instances=1 in_flight=3
         0ms    arrive R1..R5
         1ms    free 0
         10ms   finish 0
         11ms   free 0
         20ms   finish 0",
        expect![[r#"
            0ms     #0 runs R1 R2 R3
            10ms    #0 runs R4
            20ms    #0 runs R5
        "#]],
    );
}

#[test]
fn without_a_batcher_requests_stream_into_an_instance() {
    check(
        "direct instances=1 in_flight=2
         0ms    arrive A B C
         1ms    free 0
         2ms    free 0
         10ms   finish 0",
        expect![[r#"
            0ms     #0 runs A
            1ms     #0 runs B
            10ms    #0 runs C
        "#]],
    );
}

#[test]
fn the_instance_with_the_most_room_is_next() {
    check(
        "direct instances=2 in_flight=2
         0ms    arrive A B
         1ms    free 0
         1ms    free 1
         2ms    finish 1
         3ms    arrive C",
        expect![[r#"
            0ms     #0 runs A
            0ms     #1 runs B
            3ms     #1 runs C
        "#]],
    );
}

#[test]
fn nobody_waits_for_company_that_the_instance_could_not_hold() {
    check(
        "dynamic max=8 delay=100ms instances=1 in_flight=2
         0ms    arrive A B C
         1ms    free 0",
        expect![[r#"
            0ms     #0 runs A B
            at the end 1 queued
        "#]],
    );
}

#[test]
fn an_instance_that_is_down_gets_nothing_until_it_is_replaced() {
    check(
        "direct instances=2
         0ms    arrive A
         1ms    down 0
         2ms    arrive B C
         50ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            2ms     #1 runs B
            50ms    #0 runs C
        "#]],
    );
}
