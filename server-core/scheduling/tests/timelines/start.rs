//! The test hook: the first batch waits for so many requests.

use expect_test::expect;

use crate::script::check;

#[test]
fn the_first_batch_waits_for_enough_requests_and_later_ones_do_not() {
    check(
        "dynamic max=4 delay=10ms start=6 instances=2
         0ms    arrive A B C D E
         90ms   arrive F
         95ms   free 0
         96ms   arrive G",
        expect![[r#"
            90ms    #0 runs A B C D
            90ms    #1 runs E F
            96ms    sleeps until 106ms
            106ms   #0 runs G
        "#]],
    );
}

#[test]
fn what_left_has_been_there_and_what_was_refused_has_not() {
    check(
        "dynamic max=4 start=3 queue=reject,20ms,max=2 instances=1
         0ms    arrive A B C
         20ms   look
         30ms   arrive D",
        expect![[r#"
            0ms     C refused: Exceeds maximum queue size
            0ms     sleeps until 20ms
            20ms    A B expired
            20ms    pending 0, oldest 0ms, unfinished 0, drained false
            30ms    #0 runs D
        "#]],
    );
}

#[test]
fn a_close_waits_for_nobody() {
    check(
        "dynamic max=4 start=9 instances=1
         0ms    arrive A B
         5ms    close",
        expect![[r#"
            5ms     #0 runs A B
        "#]],
    );
    check(
        "rows max=2 start=9 instances=1
         0ms    arrive A B seq=1 is=start,end
         5ms    close
         6ms    free 0",
        expect![[r#"
            5ms     #0 runs A^
            6ms     #0 runs B$
        "#]],
    );
}

#[test]
fn rows_begin_when_the_slots_of_all_instances_hold_enough() {
    check(
        "rows max=2 start=4 instances=2
         0ms    arrive A1 A2 seq=1 is=start,end
         1ms    arrive B1 seq=2 is=start,end
         2ms    arrive C1 seq=3 is=start,end
         9ms    free 0",
        expect![[r#"
            2ms     #0 runs A1^ C1^$
            2ms     #1 runs B1^$
            9ms     #0 runs A2$
        "#]],
    );
}

#[test]
fn rows_begin_when_the_backlog_holds_enough_besides() {
    check(
        "rows max=1 start=1 backlog=2 instances=1
         0ms    arrive A1 seq=1 is=start,end
         1ms    arrive B1 seq=2 is=start,end
         2ms    arrive C1 seq=3 is=start,end
         9ms    free 0
         10ms   free 0",
        expect![[r#"
            2ms     #0 runs A1^$
            9ms     #0 runs B1^$
            10ms    #0 runs C1^$
        "#]],
    );
}

#[test]
fn a_backlog_without_a_number_for_the_slots_waits_for_nothing() {
    check(
        "rows max=1 backlog=2 instances=1
         0ms    arrive A1 seq=1 is=start,end",
        expect![[r#"
            0ms     #0 runs A1^$
        "#]],
    );
}

#[test]
fn the_oldest_strategy_counts_one_request_of_each_sequence() {
    check(
        "oldest max=4 candidates=4 start=2 instances=1
         0ms    arrive A1 A2 A3 seq=1 is=start,end
         7ms    arrive B1 seq=2 is=start,end",
        expect![[r#"
            7ms     #0 runs 0:A1^ 1:B1^$
            at the end 2 queued
        "#]],
    );
}
