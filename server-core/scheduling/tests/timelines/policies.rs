//! Priority levels, queue timeouts and queue sizes.

use expect_test::expect;

use crate::script::check;

#[test]
fn level_one_is_served_first() {
    check(
        "dynamic max=2 levels=3 level=2 instances=1
         0ms    arrive first second
         1ms    arrive C priority=3
         2ms    arrive B
         3ms    arrive A priority=1
         10ms   free 0
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs first second
            10ms    #0 runs A B
            20ms    #0 runs C
        "#]],
    );
}

#[test]
fn a_priority_that_is_no_level_is_the_default_one() {
    check(
        "dynamic max=1 levels=2 level=1 instances=1
         0ms    arrive first
         1ms    arrive low priority=2
         2ms    arrive zero priority=0
         3ms    arrive nine priority=9
         10ms   free 0
         20ms   free 0
         30ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            10ms    #0 runs zero
            20ms    #0 runs nine
            30ms    #0 runs low
        "#]],
    );
}

#[test]
fn without_levels_a_priority_has_no_effect() {
    check(
        "dynamic max=1 instances=1
         0ms    arrive first
         1ms    arrive A priority=2
         2ms    arrive B priority=1
         10ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            10ms    #0 runs A
            at the end 1 queued
        "#]],
    );
}

#[test]
fn levels_share_a_batch() {
    check(
        "dynamic max=8 levels=2 level=2 instances=1
         0ms    arrive first
         1ms    arrive B1 B2
         2ms    arrive A1 A2 priority=1
         10ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            10ms    #0 runs A1 A2 B1 B2
        "#]],
    );
}

#[test]
fn who_comes_first_by_level_restarts_the_walk() {
    check(
        "dynamic max=8 preferred=4 delay=100ms levels=2 level=2 instances=1
         0ms    arrive B size=3
         10ms   arrive A size=2 priority=1",
        expect![[r#"
            0ms     sleeps until 100ms
            10ms    #0 runs A
            at the end 1 queued
        "#]],
    );
}

#[test]
fn the_delay_of_a_request_of_a_low_level_counts() {
    check(
        "dynamic max=8 preferred=2 delay=100ms levels=2 level=2 instances=1
         0ms    arrive first second
         10ms   arrive B
         20ms   arrive A1 A2 priority=1
         120ms  free 0",
        expect![[r#"
            0ms     #0 runs first second
            120ms   #0 runs A1 A2 B
        "#]],
    );
}

#[test]
fn a_timeout_of_the_queue_rejects_although_every_instance_is_busy() {
    check(
        "dynamic max=4 queue=reject,50ms instances=1
         0ms    arrive first
         1ms    arrive A timeout=10ms
         90ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 51ms
            51ms    A expired
        "#]],
    );
}

#[test]
fn a_request_may_shorten_its_timeout_but_not_lengthen_it() {
    check(
        "dynamic max=4 queue=reject,50ms,override instances=1
         0ms    arrive first
         1ms    arrive A timeout=10ms
         2ms    arrive B timeout=900ms
         3ms    arrive C",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 11ms
            11ms    A expired
            11ms    sleeps until 52ms
            52ms    B expired
            52ms    sleeps until 53ms
            53ms    C expired
        "#]],
    );
}

#[test]
fn a_timeout_without_a_default_has_no_effect() {
    check(
        "dynamic max=4 queue=reject,override instances=1
         0ms    arrive first
         1ms    arrive A timeout=10ms
         90ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            90ms    #0 runs A
        "#]],
    );
}

#[test]
fn what_is_late_goes_behind_those_of_its_level_that_are_on_time() {
    check(
        "dynamic max=1 queue=delay,20ms,override instances=1
         0ms    arrive first
         1ms    arrive A timeout=5ms
         2ms    arrive B
         3ms    arrive C
         10ms   free 0
         15ms   free 0
         30ms   arrive D
         31ms   free 0
         32ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 6ms
            6ms     sleeps until 22ms
            10ms    #0 runs B
            10ms    sleeps until 23ms
            15ms    #0 runs C
            30ms    sleeps until 50ms
            31ms    #0 runs D
            32ms    #0 runs A
        "#]],
    );
}

#[test]
fn what_is_late_stays_before_the_levels_below() {
    check(
        "dynamic max=1 levels=2 level=2 queue1=delay,5ms instances=1
         0ms    arrive first
         1ms    arrive A priority=1
         2ms    arrive B
         10ms   free 0
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 6ms
            10ms    #0 runs A
            20ms    #0 runs B
        "#]],
    );
}

#[test]
fn what_is_late_never_expires_by_its_timeout_but_by_its_deadline() {
    check(
        "dynamic max=1 queue=delay,5ms instances=1
         0ms    arrive first
         1ms    arrive A
         2ms    arrive B deadline=40ms
         90ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 6ms
            6ms     sleeps until 7ms
            7ms     sleeps until 40ms
            40ms    B expired
            90ms    #0 runs A
        "#]],
    );
}

#[test]
fn who_becomes_late_while_a_batch_waits_does_not_hold_it_up() {
    check(
        "dynamic max=8 preferred=4 delay=100ms queue=delay,30ms,override instances=1
         0ms    arrive A timeout=10ms
         20ms   arrive B",
        expect![[r#"
            0ms     sleeps until 10ms
            10ms    sleeps until 100ms
            20ms    sleeps until 50ms
            50ms    sleeps until 100ms
            100ms   #0 runs A B
        "#]],
    );
}

#[test]
fn late_requests_keep_the_order_of_their_timeouts() {
    check(
        "dynamic max=1 queue=delay,50ms,override instances=1
         0ms    arrive first
         1ms    arrive A
         2ms    arrive B timeout=10ms
         3ms    arrive C
         90ms   free 0
         91ms   free 0
         92ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            1ms     sleeps until 51ms
            2ms     sleeps until 12ms
            12ms    sleeps until 51ms
            51ms    sleeps until 53ms
            90ms    #0 runs B
            91ms    #0 runs A
            92ms    #0 runs C
        "#]],
    );
}

#[test]
fn a_full_level_refuses() {
    check(
        "dynamic max=4 queue=reject,max=2 instances=1
         0ms    arrive first
         1ms    arrive A B C
         10ms   free 0
         11ms   arrive D",
        expect![[r#"
            0ms     #0 runs first
            1ms     C refused: Exceeds maximum queue size
            10ms    #0 runs A B
            at the end 1 queued
        "#]],
    );
}

#[test]
fn each_level_counts_for_itself_and_late_ones_count() {
    check(
        "dynamic max=4 levels=2 level=2 queue=delay,5ms,max=1 queue1=reject,max=2 instances=1
         0ms    arrive first
         1ms    arrive A1 A2 A3 priority=1
         2ms    arrive B1
         9ms    arrive B2
         10ms   cancel B1
         11ms   arrive B3",
        expect![[r#"
            0ms     #0 runs first
            1ms     A3 refused: Exceeds maximum queue size
            2ms     sleeps until 7ms
            9ms     B2 refused: Exceeds maximum queue size
            10ms    B1 cancelled
            11ms    sleeps until 16ms
            at the end 3 queued
        "#]],
    );
}
