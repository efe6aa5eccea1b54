//! Where a batch is cut: preferred sizes, the limit, shapes.

use expect_test::expect;

use crate::script::check;

#[test]
fn the_best_preferred_cut_wins_over_a_larger_batch() {
    check(
        "dynamic max=16 preferred=4,8 instances=1
         0ms    arrive first
         1ms    arrive R1..R7
         20ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs R1 R2 R3 R4
            40ms    #0 runs R5 R6 R7
        "#]],
    );
}

#[test]
fn the_largest_preferred_size_met_wins() {
    check(
        "dynamic max=32 preferred=4,8,16 instances=1
         0ms    arrive first
         1ms    arrive R1..R20
         20ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs R1 to R16 (16)
            40ms    #0 runs R17 R18 R19 R20
        "#]],
    );
}

#[test]
fn a_batch_that_would_jump_over_every_preferred_size_is_cut_before_it() {
    check(
        "dynamic max=8 preferred=4 delay=100ms instances=2
         0ms    arrive A size=3
         5ms    arrive B size=3",
        expect![[r#"
            0ms     sleeps until 100ms
            5ms     #0 runs A
            5ms     sleeps until 105ms
            105ms   #1 runs B
        "#]],
    );
}

#[test]
fn a_preferred_cut_met_earlier_stays_the_best() {
    check(
        "dynamic max=8 preferred=2,6 instances=1
         0ms    arrive first
         1ms    arrive A B
         2ms    arrive C size=5
         20ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs A B
            40ms    #0 runs C
        "#]],
    );
}

#[test]
fn a_single_request_may_be_larger_than_every_preferred_size() {
    check(
        "dynamic max=8 preferred=4 delay=100ms instances=1
         0ms    arrive A size=7",
        expect![[r#"
            0ms     #0 runs A
        "#]],
    );
}

#[test]
fn a_batch_never_exceeds_max_batch_size() {
    check(
        "dynamic max=8 instances=1
         0ms    arrive first
         1ms    arrive A B C size=3
         20ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs A B
            40ms    #0 runs C
        "#]],
    );
}

#[test]
fn after_the_delay_a_batch_still_stops_at_max_batch_size() {
    check(
        "dynamic max=8 preferred=4 delay=10ms instances=1
         0ms    arrive first
         20ms   arrive A B C size=3
         50ms   free 0
         60ms   free 0",
        expect![[r#"
            0ms     sleeps until 10ms
            10ms    #0 runs first
            50ms    #0 runs A B
            60ms    #0 runs C
        "#]],
    );
}

#[test]
fn another_shape_closes_the_batch_and_nobody_behind_it_joins() {
    check(
        "dynamic max=8 delay=100ms instances=3
         0ms    arrive A B shape=x
         5ms    arrive C shape=y
         6ms    arrive D shape=x",
        expect![[r#"
            0ms     sleeps until 100ms
            5ms     #0 runs A B
            5ms     sleeps until 105ms
            6ms     #1 runs C
            6ms     sleeps until 106ms
            106ms   #2 runs D
        "#]],
    );
}

#[test]
fn the_batch_opens_again_when_the_request_that_closed_it_leaves() {
    check(
        "dynamic max=8 delay=100ms instances=1
         0ms    arrive first shape=x
         110ms  arrive A shape=x
         111ms  arrive B shape=y
         112ms  arrive C shape=x
         113ms  cancel B
         120ms  free 0",
        expect![[r#"
            0ms     sleeps until 100ms
            100ms   #0 runs first
            113ms   B cancelled
            120ms   sleeps until 210ms
            210ms   #0 runs A C
        "#]],
    );
}

#[test]
fn a_preferred_cut_before_another_shape_goes_first() {
    check(
        "dynamic max=8 preferred=2,8 instances=1
         0ms    arrive first shape=x
         1ms    arrive A B C shape=x
         2ms    arrive D shape=y
         20ms   free 0
         40ms   free 0
         60ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs A B
            40ms    #0 runs C
            60ms    #0 runs D
        "#]],
    );
}

#[test]
fn a_model_without_batch_dimension_runs_one_by_one() {
    check(
        "dynamic max=0 delay=100ms instances=1
         0ms    arrive A B
         20ms   free 0",
        expect![[r#"
            0ms     #0 runs A
            20ms    #0 runs B
        "#]],
    );
}

#[test]
fn an_empty_request_counts_as_one_element() {
    check(
        "dynamic max=2 instances=1
         0ms    arrive first
         1ms    arrive A B C size=0
         20ms   free 0
         40ms   free 0",
        expect![[r#"
            0ms     #0 runs first
            20ms    #0 runs A B
            40ms    #0 runs C
        "#]],
    );
}
