//! The oldest strategy: one request of a sequence at a time, batched as by the dynamic batcher.

use expect_test::expect;

use crate::script::check;

#[test]
fn the_next_request_of_a_sequence_waits_for_the_last_one_to_be_done() {
    check(
        "oldest max=4 instances=1
         0ms    arrive A1..A3 seq=1 is=start,end
         5ms    free 0
         10ms   done 0 A1
         20ms   free 0
         21ms   done 0 A2
         22ms   free 0",
        expect![[r#"
            0ms     #0 runs 0:A1^
            10ms    #0 runs 0:A2
            21ms    #0 runs 0:A3$
        "#]],
    );
}

#[test]
fn sequences_share_batches() {
    check(
        "oldest max=4 preferred=2,4 instances=1
         0ms    arrive A1 A2 seq=1 is=start
         0ms    arrive B1 B2 seq=2 is=start
         0ms    arrive C1 C2 seq=3 is=start
         10ms   done 0 A1
         10ms   free 0
         20ms   done 0 B1
         20ms   done 0 C1
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs 0:A1^
            0ms     sleeps until 1000ms
            10ms    #0 runs 1:B1^ 2:C1^
            20ms    #0 runs 0:A2 1:B2
            at the end 1 queued
        "#]],
    );
}

#[test]
fn the_delay_counts_from_when_the_request_could_go() {
    check(
        "oldest max=4 delay=50ms instances=2
         0ms    arrive A1 A2 seq=1 is=start
         60ms   done 0 A1
         60ms   free 0
         200ms  look",
        expect![[r#"
            0ms     sleeps until 50ms
            50ms    #0 runs 0:A1^
            50ms    sleeps until 1000ms
            60ms    sleeps until 110ms
            110ms   #0 runs 0:A2
            110ms   sleeps until 1000ms
            200ms   pending 0, oldest 0ms, unfinished 1, drained false
            200ms   open sequences 1, retired []
        "#]],
    );
}

#[test]
fn more_sequences_than_a_batch_has_rows_are_served_in_turn() {
    check(
        "oldest max=2 candidates=3 instances=1
         0ms    arrive A1 A2 seq=1 is=start
         0ms    arrive B1 B2 seq=2 is=start
         0ms    arrive C1 C2 seq=3 is=start
         0ms    arrive D1 seq=4 is=start
         10ms   done 0 A1
         10ms   free 0
         20ms   done 0 B1
         20ms   done 0 C1
         20ms   free 0
         30ms   look",
        expect![[r#"
            0ms     #0 runs 0:A1^
            0ms     sleeps until 1000ms
            10ms    #0 runs 1:B1^ 2:C1^
            20ms    #0 runs 0:A2 1:B2
            30ms    pending 2, oldest 30ms, unfinished 2, drained false
            30ms    open sequences 4, retired []
            at the end 2 queued
        "#]],
    );
}

#[test]
fn the_slot_is_free_when_the_end_is_handed_on_but_the_next_sequence_waits_for_its_answer() {
    check(
        "oldest max=4 candidates=1 instances=1
         0ms    arrive A1 seq=1 is=start,end
         1ms    arrive B1 seq=2 is=start
         2ms    arrive C1 seq=3 is=start timeout=100ms
         5ms    free 0
         10ms   done 0 A1
         20ms   free 0
         21ms   done 0 B1
         22ms   arrive B2 seq=2 is=end
         23ms   free 0",
        expect![[r#"
            0ms     #0 runs 0:A1^$
            1ms     sleeps until 1001ms
            2ms     sleeps until 102ms
            10ms    #0 runs 0:B1^
            22ms    #0 runs 0:B2$
            22ms    sleeps until 1022ms
            at the end 1 queued
        "#]],
    );
}

#[test]
fn shapes_close_a_batch_as_in_the_dynamic_batcher() {
    check(
        "oldest max=4 instances=1
         0ms    arrive first seq=9 is=start
         0ms    arrive A1 seq=1 is=start
         0ms    arrive B1 seq=2 is=start shape=x
         0ms    arrive C1 seq=3 is=start
         10ms   free 0
         20ms   free 0
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs 0:first^
            0ms     sleeps until 1000ms
            10ms    #0 runs 1:A1^
            20ms    #0 runs 2:B1^
            30ms    #0 runs 3:C1^
        "#]],
    );
}

#[test]
fn a_cancelled_request_takes_those_behind_it_along_even_out_of_the_batcher() {
    check(
        "oldest max=4 delay=100ms instances=1
         0ms    arrive A1..A3 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         10ms   cancel A1
         20ms   arrive A4 seq=1",
        expect![[r#"
            0ms     sleeps until 100ms
            10ms    A1 cancelled
            10ms    A2 left: the sequence of this request was cancelled
            10ms    A3 left: the sequence of this request was cancelled
            10ms    sleeps until 101ms
            20ms    A4 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            101ms   #0 runs 1:B1^
            101ms   sleeps until 1001ms
        "#]],
    );
}

#[test]
fn after_close_nobody_waits_for_company() {
    check(
        "oldest max=4 delay=100ms instances=1 idle=500ms
         0ms    arrive A1 seq=1 is=start
         10ms   close
         20ms   done 0 A1
         20ms   free 0
         30ms   arrive A2 seq=1
         31ms   arrive B1 seq=2 is=start
         40ms   done 0 A2
         40ms   look
         540ms  look",
        expect![[r#"
            0ms     sleeps until 100ms
            10ms    #0 runs 0:A1^
            10ms    sleeps until 500ms
            30ms    #0 runs 0:A2
            30ms    sleeps until 530ms
            31ms    B1 refused: the model is being unloaded and takes no new requests
            40ms    pending 0, oldest 0ms, unfinished 0, drained false
            40ms    open sequences 1, retired []
            540ms   pending 0, oldest 0ms, unfinished 0, drained true
            540ms   open sequences 0, retired []
        "#]],
    );
}

#[test]
fn an_idle_sequence_keeps_its_slot_until_its_request_is_done() {
    check(
        "oldest max=1 candidates=1 idle=100ms instances=1
         0ms    arrive A1 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         150ms  arrive A2 seq=1
         200ms  done 0 A1
         201ms  free 0",
        expect![[r#"
            0ms     #0 runs 0:A1^
            0ms     sleeps until 100ms
            150ms   A2 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            200ms   sleeps until 300ms
            201ms   #0 runs 0:B1^
        "#]],
    );
}

#[test]
fn a_sequence_of_a_failed_instance_is_lost() {
    check(
        "oldest max=4 delay=100ms instances=2 idle=9000ms
         0ms    arrive A1..A3 seq=1 is=start
         1ms    arrive B1 seq=2 is=start
         50ms   down 0
         60ms   arrive A4 seq=1
         61ms   arrive A5 seq=1 is=start
         300ms  free 0
         301ms  arrive C1 seq=3 is=start",
        expect![[r#"
            0ms     sleeps until 100ms
            50ms    A1 left: the instance that held the state of this sequence failed; start the sequence again
            50ms    A2 left: the instance that held the state of this sequence failed; start the sequence again
            50ms    A3 left: the instance that held the state of this sequence failed; start the sequence again
            50ms    sleeps until 101ms
            60ms    A4 refused: inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence
            101ms   #1 runs 0:B1^ 1:A5^
            101ms   sleeps until 9001ms
            301ms   sleeps until 401ms
            401ms   #0 runs 0:C1^
            401ms   sleeps until 9001ms
            9001ms  sleeps until 9061ms
            9061ms  sleeps until 9301ms
        "#]],
    );
}
