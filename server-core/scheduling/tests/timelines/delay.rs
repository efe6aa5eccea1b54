//! max_queue_delay_microseconds: how long requests wait for company.

use expect_test::expect;

use crate::script::check;

#[test]
fn three_requests_leave_when_the_delay_is_over() {
    check(
        "dynamic max=32 preferred=4,8,16,32 delay=100ms instances=1
         0ms    arrive A
         30ms   arrive B
         60ms   arrive C",
        expect![[r#"
            0ms     sleeps until 100ms
            100ms   #0 runs A B C
        "#]],
    );
}

#[test]
fn thirty_two_requests_leave_at_once() {
    check(
        "dynamic max=32 preferred=4,8,16,32 delay=100ms instances=1
         0ms    arrive R1..R32",
        expect![[r#"
            0ms     #0 runs R1 to R32 (32)
        "#]],
    );
}

#[test]
fn a_preferred_size_leaves_as_soon_as_it_is_met() {
    check(
        "dynamic max=32 preferred=4,8 delay=100ms instances=2
         0ms    arrive A
         10ms   arrive B
         20ms   arrive C
         30ms   arrive D
         40ms   arrive E",
        expect![[r#"
            0ms     sleeps until 100ms
            30ms    #0 runs A B C D
            40ms    sleeps until 140ms
            140ms   #1 runs E
        "#]],
    );
}

#[test]
fn without_a_delay_nobody_waits() {
    check(
        "dynamic max=8 instances=1
         0ms    arrive A
         1ms    arrive B
         2ms    arrive C
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            20ms    #0 runs B C
        "#]],
    );
}

#[test]
fn the_delay_counts_from_the_oldest_even_while_all_instances_are_busy() {
    check(
        "dynamic max=8 preferred=4 delay=50ms instances=1
         0ms    arrive A B C D
         10ms   arrive E
         20ms   arrive F
         80ms   free 0",
        expect![[r#"
            0ms     #0 runs A B C D
            80ms    #0 runs E F
        "#]],
    );
}

#[test]
fn after_the_delay_preferred_sizes_are_no_limit() {
    check(
        "dynamic max=8 preferred=4 delay=50ms instances=1
         0ms    arrive A B C D
         1ms    arrive E F G H I J
         80ms   free 0",
        expect![[r#"
            0ms     #0 runs A B C D
            80ms    #0 runs E F G H I J
        "#]],
    );
}

#[test]
fn what_is_left_behind_waits_for_its_own_delay() {
    check(
        "dynamic max=8 preferred=4 delay=50ms instances=2
         0ms    arrive A B
         20ms   arrive C D E",
        expect![[r#"
            0ms     sleeps until 50ms
            20ms    #0 runs A B C D
            20ms    sleeps until 70ms
            70ms    #1 runs E
        "#]],
    );
}

#[test]
fn an_arrival_goes_on_where_the_walk_stopped() {
    check(
        "dynamic max=4 delay=100ms instances=1
         0ms    arrive A
         1ms    arrive B size=2
         2ms    arrive C",
        expect![[r#"
            0ms     sleeps until 100ms
            2ms     #0 runs A B C
        "#]],
    );
}
