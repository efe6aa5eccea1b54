//! The direct strategy: rows, null requests, waiting for company.

use expect_test::expect;

use crate::script::check;

#[test]
fn a_sequence_keeps_its_row() {
    check(
        "rows max=4 instances=1
         0ms    arrive A1 seq=1 is=start
         0ms    arrive B1 seq=2 is=start
         0ms    arrive C1 seq=3 is=start
         10ms   free 0
         11ms   arrive C2 seq=3
         12ms   arrive A2 seq=1
         20ms   free 0
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            10ms    #0 runs - B1^ C1^
            20ms    #0 runs A2 - C2
            1000ms  sleeps until 1011ms
            1011ms  sleeps until 1012ms
        "#]],
    );
}

#[test]
fn rows_without_a_request_are_null_requests_up_to_the_last_that_has_one() {
    check(
        "rows max=4 instances=1
         0ms    arrive A1 seq=1 is=start
         0ms    arrive B1 seq=2 is=start
         0ms    arrive C1 seq=3 is=start
         10ms   free 0
         20ms   arrive B2 seq=2",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            10ms    #0 runs - B1^ C1^
            1000ms  sleeps until 1020ms
            at the end 1 queued
        "#]],
    );
}

#[test]
fn one_request_of_a_sequence_runs_at_a_time_in_order() {
    check(
        "rows max=4 instances=1
         0ms    arrive A1..A3 seq=1 is=start,end
         10ms   free 0
         20ms   free 0
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            10ms    #0 runs A2
            20ms    #0 runs A3$
        "#]],
    );
}

#[test]
fn sequences_go_to_the_lowest_slots_of_all_instances() {
    check(
        "rows max=2 instances=2
         0ms    arrive A1 seq=1 is=start
         0ms    arrive B1 seq=2 is=start
         0ms    arrive C1 seq=3 is=start
         1ms    arrive D1 seq=4 is=start
         10ms   free 0
         10ms   free 1
         20ms   arrive A2 seq=1
         21ms   arrive B2 seq=2",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            0ms     #1 runs B1^
            10ms    #0 runs - C1^
            10ms    #1 runs - D1^
            1000ms  sleeps until 1001ms
            1001ms  sleeps until 1020ms
            1020ms  sleeps until 1021ms
            at the end 2 queued
        "#]],
    );
}

#[test]
fn without_a_free_slot_a_sequence_waits_as_a_whole() {
    check(
        "rows max=1 instances=1
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 B2 seq=2 is=start,end
         2ms    arrive C1 seq=3 is=start
         3ms    arrive C2 seq=3
         10ms   free 0
         20ms   arrive A2 seq=1 is=end
         30ms   free 0
         40ms   free 0
         50ms   free 0
         60ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            20ms    #0 runs A2$
            30ms    #0 runs B1^
            40ms    #0 runs B2$
            40ms    sleeps until 1040ms
            50ms    #0 runs C1^
            60ms    #0 runs C2
        "#]],
    );
}

#[test]
fn a_slot_that_becomes_free_takes_the_sequence_that_waits_longest() {
    check(
        "rows max=2 instances=1
         0ms    arrive A1 seq=1 is=start,end
         0ms    arrive B1 seq=2 is=start
         1ms    arrive C1 seq=3 is=start
         2ms    arrive D1 seq=4 is=start
         10ms   free 0
         20ms   free 0
         21ms   arrive C2 seq=3 is=end
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^$
            0ms     sleeps until 1000ms
            10ms    #0 runs B1^ C1^
            21ms    #0 runs - C2$
            30ms    #0 runs - D1^
            1000ms  sleeps until 1021ms
        "#]],
    );
}

#[test]
fn a_request_of_another_shape_waits_for_the_next_execution() {
    check(
        "rows max=4 instances=1
         0ms    arrive A0 seq=1 is=start
         1ms    arrive A1 seq=1
         2ms    arrive B1 seq=2 is=start shape=x
         3ms    arrive C1 seq=3 is=start
         10ms   free 0
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs A0^
            0ms     sleeps until 1000ms
            1ms     sleeps until 1001ms
            10ms    #0 runs A1 - C1^
            20ms    #0 runs - B1^
            1001ms  sleeps until 1002ms
            1002ms  sleeps until 1003ms
        "#]],
    );
}

#[test]
fn nobody_waits_without_both_a_delay_and_a_share() {
    check(
        "rows max=4 delay=100ms instances=1
         0ms    arrive A1 seq=1 is=start
         10ms   free 0
         20ms   arrive A2 seq=1",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            20ms    #0 runs A2
            20ms    sleeps until 1020ms
        "#]],
    );
}

#[test]
fn requests_wait_until_enough_slots_are_ready() {
    check(
        "rows max=4 delay=100ms share=0.5 instances=1
         0ms    arrive A1 seq=1 is=start
         40ms   arrive B1 seq=2 is=start
         50ms   free 0
         60ms   arrive A2 seq=1
         400ms  free 0",
        expect![[r#"
            0ms     sleeps until 100ms
            40ms    #0 runs A1^ B1^
            40ms    sleeps until 1000ms
            60ms    sleeps until 160ms
            160ms   #0 runs A2
            160ms   sleeps until 1040ms
            1040ms  sleeps until 1060ms
        "#]],
    );
}

#[test]
fn the_delay_counts_from_the_oldest_request() {
    check(
        "rows max=4 delay=100ms share=1.0 idle=5000ms instances=1
         0ms    arrive A1 seq=1 is=start
         30ms   arrive B1 seq=2 is=start
         200ms  free 0
         210ms  arrive B2 seq=2
         250ms  arrive A2 seq=1",
        expect![[r#"
            0ms     sleeps until 100ms
            100ms   #0 runs A1^ B1^
            100ms   sleeps until 5000ms
            210ms   sleeps until 310ms
            310ms   #0 runs A2 B2
            310ms   sleeps until 5210ms
            5210ms  sleeps until 5250ms
        "#]],
    );
}

#[test]
fn an_instance_that_can_hold_fewer_takes_the_lowest_slots() {
    check(
        "rows max=4 instances=1 in_flight=2
         0ms    arrive A1 seq=1 is=start
         1ms    arrive A2 seq=1
         1ms    arrive B1 seq=2 is=start
         1ms    arrive C1 seq=3 is=start
         10ms   free 0
         20ms   done 0 A1
         20ms   done 0 A2
         21ms   free 0",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            1ms     sleeps until 1001ms
            10ms    #0 runs A2 - -
            21ms    #0 runs - B1^ C1^
        "#]],
    );
}

#[test]
fn a_model_without_a_batch_dimension_has_one_slot() {
    check(
        "rows max=0 instances=2
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         2ms    arrive C1 seq=3 is=start,end
         10ms   free 0
         11ms   free 1
         12ms   arrive B2 seq=2 is=end
         13ms   free 1",
        expect![[r#"
            0ms     #0 runs A1^
            0ms     sleeps until 1000ms
            1ms     #1 runs B1^
            12ms    #1 runs B2$
            13ms    #1 runs C1^$
        "#]],
    );
}
