//! What the server has not.

use expect_test::{Expect, expect};
use trireme_model_config::Capabilities;

use crate::check;

#[test]
fn what_the_server_has_not_is_named() {
    let bare = |text: &str, expected: Expect| {
        let text = format!("backend: \"tensorrt\" max_batch_size: 8\n{text}");
        let found = match check(&text, &Capabilities::default()) {
            Ok((_, warnings)) => warnings,
            Err(findings) => findings,
        };
        let said: String =
            found.iter().map(|finding| format!("{:?}: {finding}\n", finding.severity)).collect();
        expected.assert_eq(&said);
    };
    bare(
        "runtime: \"other\"",
        expect![[r#"
        Error: line 2, column 1: another runtime file for a backend is not implemented
          | runtime: "other"
          | ^^^^^^^
          = name the backend itself in `backend`
    "#]],
    );
    bare(
        "model_repository_agents { agents { name: \"checksum\" } }",
        expect![[r#"
        Error: line 2, column 1: repository agents are not implemented
          | model_repository_agents { agents { name: "checksum" } }
          | ^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "model_operations { op_library_filename: \"plugin.so\" }",
        expect![[r#"
        Error: line 2, column 1: operation libraries are not implemented
          | model_operations { op_library_filename: "plugin.so" }
          | ^^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "parameters { key: \"TRITON_BATCH_STRATEGY_PATH\" value { string_value: \"x.so\" } }",
        expect![[r#"
        Error: line 2, column 12: TRITON_BATCH_STRATEGY_PATH: custom batching libraries are not implemented
          | parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "x.so" } }
          |            ^
    "#]],
    );
    bare(
        "instance_group { host_policy: \"numa\" }",
        expect![[r#"
        Warning: line 2, column 18: host policies are not implemented: this has no effect
          | instance_group { host_policy: "numa" }
          |                  ^^^^^^^^^^^
    "#]],
    );
    bare(
        "input { name: \"A\" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }",
        expect![[r#"
        Error: line 2, column 49: shape tensors are not implemented yet
          | input { name: "A" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }
          |                                                 ^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
        expect![[r#"
        Error: line 2, column 20: priority levels are not implemented yet
          | dynamic_batching { priority_levels: 2 default_priority_level: 1 }
          |                    ^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "dynamic_batching { default_queue_policy { max_queue_size: 5 } }",
        expect![[r#"
        Error: line 2, column 20: queue policies are not implemented yet
          | dynamic_batching { default_queue_policy { max_queue_size: 5 } }
          |                    ^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "dynamic_batching { priority_levels: 1 default_priority_level: 1\n\
         priority_queue_policy { key: 1 value { default_timeout_microseconds: 9 } } }",
        expect![[r#"
            Error: line 3, column 1: queue policies are not implemented yet
              | priority_queue_policy { key: 1 value { default_timeout_microseconds: 9 } } }
              | ^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    bare(
        "dynamic_batching { preserve_ordering: true }",
        expect![[r#"
        Error: line 2, column 20: preserve_ordering is not implemented yet
          | dynamic_batching { preserve_ordering: true }
          |                    ^^^^^^^^^^^^^^^^^
    "#]],
    );
    bare(
        "instance_group { kind: KIND_GPU gpus: [ 0, 0 ] }",
        expect![[r#"
        Warning: line 2, column 33: instance group 'm' lists a GPU twice, which doubles its instances there
          | instance_group { kind: KIND_GPU gpus: [ 0, 0 ] }
          |                                 ^^^^
          = `count` says how many instances each GPU has
    "#]],
    );
    bare(
        "dynamic_batching { default_priority_level: 1\n priority_queue_policy { key: 1 value { max_queue_size: 1 } } }",
        expect![[r#"
            Warning: line 2, column 20: without priority_levels, default_priority_level has no effect
              | dynamic_batching { default_priority_level: 1
              |                    ^^^^^^^^^^^^^^^^^^^^^^
            Warning: line 3, column 2: without priority_levels, priority_queue_policy has no effect
              |  priority_queue_policy { key: 1 value { max_queue_size: 1 } } }
              |  ^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    // What is there, but does nothing, is no finding.
    bare("dynamic_batching { default_queue_policy { allow_timeout_override: true } }", expect![[""]]);
    bare("model_repository_agents { } model_operations { } response_cache { enable: false }", expect![[""]]);
}
