//! The dynamic batcher and the response cache.

use expect_test::expect;

use crate::{batching, refused};

#[test]
fn the_dynamic_batcher() {
    refused(
        "backend: \"identity\"\ndynamic_batching { }",
        expect![[r#"
        line 2, column 1: dynamic batching needs max_batch_size above 0
          | dynamic_batching { }
          | ^^^^^^^^^^^^^^^^
          = set max_batch_size, or leave dynamic_batching out
    "#]],
    );
    batching(
        "dynamic_batching {\n preferred_batch_size: [ 4, 9,\n 0 ] }",
        expect![[r#"
        line 3, column 29: preferred_batch_size 9 must be 1 to max_batch_size (8)
          |  preferred_batch_size: [ 4, 9,
          |                             ^
        line 4, column 2: preferred_batch_size 0 must be 1 to max_batch_size (8)
          |  0 ] }
          |  ^
    "#]],
    );
    batching(
        "dynamic_batching { priority_levels: 2 }",
        expect![[r#"
        line 2, column 20: default_priority_level is 0; with priority_levels 2 it must be 1 to 2
          | dynamic_batching { priority_levels: 2 }
          |                    ^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        expect![[r#"
        line 2, column 39: default_priority_level is 3; with priority_levels 2 it must be 1 to 2
          | dynamic_batching { priority_levels: 2 default_priority_level: 3 }
          |                                       ^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "dynamic_batching { priority_levels: 2 default_priority_level: 1\n priority_queue_policy { key: 3 value { } } }",
        expect![[r#"
            line 3, column 24: priority_queue_policy is for level 3, but the levels are 1 to 2
              |  priority_queue_policy { key: 3 value { } } }
              |                        ^
        "#]],
    );
    batching(
        "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
        expect![[r#"
            line 2, column 20: preserve_ordering cannot be used with more than one priority level
              | dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }
              |                    ^^^^^^^^^^^^^^^^^
              = take one of the two out
        "#]],
    );
    batching(
        "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }",
        expect![[r#"
            line 2, column 20: preserve_ordering cannot be used with the timeout_action DELAY
              | dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }
              |                    ^^^^^^^^^^^^^^^^^
              = use REJECT, or take preserve_ordering out
        "#]],
    );
}

#[test]
fn the_response_cache() {
    batching(
        "response_cache { enable: true } model_transaction_policy { decoupled: true }",
        expect![[r#"
        line 2, column 1: response_cache cannot be used with a decoupled model: a request has any number of answers
          | response_cache { enable: true } model_transaction_policy { decoupled: true }
          | ^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "response_cache { enable: true } sequence_batching { }",
        expect![[r#"
        line 2, column 1: response_cache cannot be used with sequence_batching: an answer depends on those before
          | response_cache { enable: true } sequence_batching { }
          | ^^^^^^^^^^^^^^
    "#]],
    );
}
