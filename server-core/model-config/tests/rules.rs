//! Every rule once: a configuration that breaks it, and the line that is named.

use expect_test::{Expect, expect};
use trireme_model_config::{Capabilities, CheckedConfig, Draft, Finding, Scheduling, to_pbtxt};

fn check(text: &str, capabilities: &Capabilities) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
    let mut draft = Draft::parse(None, text.to_owned()).unwrap_or_else(|finding| panic!("{finding}"));
    draft.normalise("m", &[]);
    draft.check_for("m", capabilities)
}

/// What a server with sequences, ensembles and the rest says.
fn refused(text: &str, expected: Expect) {
    let capabilities = Capabilities {
        sequence_batching: true,
        ensemble_scheduling: true,
        response_cache: true,
        model_warmup: true,
        batch_input_output: true,
        model_metrics: true,
        rate_limiter: true,
        runtime: true,
        preserve_ordering: true,
        priority_levels: true,
        queue_policies: true,
        ..Capabilities::default()
    };
    let findings = check(text, &capabilities).expect_err("it is accepted");
    let said: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    expected.assert_eq(&said);
}

/// As [`refused`], below a backend and `max_batch_size: 8`.
fn batching(text: &str, expected: Expect) {
    refused(&format!("backend: \"identity\" max_batch_size: 8\n{text}"), expected);
}

#[test]
fn name_backend_and_platform() {
    refused(
        "name: \"other\"\nbackend: \"identity\"",
        expect![[r#"
        line 1, column 1: unexpected directory name 'm' for model 'other', directory name must equal model name
          | name: "other"
          | ^^^^
          = leave the field out, or rename the directory
    "#]],
    );
    refused(
        "max_batch_size: 1",
        expect![[r#"
        model 'm' names no backend
          = add a line such as `backend: "identity"`
    "#]],
    );
    refused(
        "platform: \"tensorflow_lite\"",
        expect![[r#"
        line 1, column 1: model 'm' names no backend, and none belongs to platform 'tensorflow_lite'
          | platform: "tensorflow_lite"
          | ^^^^^^^^
          = add a line such as `backend: "identity"`
    "#]],
    );
    refused(
        "backend: \"../identity\"",
        expect![[r#"
        line 1, column 1: backend name '../identity' may hold letters, digits, '_' and '-' only
          | backend: "../identity"
          | ^^^^^^^
    "#]],
    );
    refused(
        "backend: \"onnxruntime\"\nplatform: \"tensorrt_plan\"",
        expect![[r#"
        line 2, column 1: platform 'tensorrt_plan' belongs to backend 'tensorrt', not to 'onnxruntime'
          | platform: "tensorrt_plan"
          | ^^^^^^^^
          = one of the two fields is enough
    "#]],
    );
    refused(
        "backend: \"onnxruntime\"\nplatform: \"onnx\"",
        expect![[r#"
        line 2, column 1: platform 'onnx' is none of backend 'onnxruntime'
          | platform: "onnx"
          | ^^^^^^^^
          = it is 'onnxruntime_onnx', or leave the field out
    "#]],
    );
    refused(
        "backend: \"identity\"\nruntime: \"../x.so\"",
        expect![[r#"
        line 2, column 1: runtime '../x.so' leaves the backend's directory
          | runtime: "../x.so"
          | ^^^^^^^
    "#]],
    );
    refused(
        "backend: \"identity\"\ndefault_model_filename: \"/etc/passwd\"",
        expect![[r#"
        line 2, column 1: default_model_filename '/etc/passwd' leaves the version's directory
          | default_model_filename: "/etc/passwd"
          | ^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    refused(
        "backend: \"identity\"\ncc_model_filenames { key: \"8.0\" value: \"../m.plan\" }",
        expect![[r#"
        line 2, column 20: cc_model_filenames has '../m.plan', which leaves the version's directory
          | cc_model_filenames { key: "8.0" value: "../m.plan" }
          |                    ^
    "#]],
    );
}

#[test]
fn a_batch_size_is_not_negative() {
    refused(
        "backend: \"identity\"\nmax_batch_size: -1",
        expect![[r#"
        line 2, column 1: max_batch_size is -1; it must be 0 (no batching) or more
          | max_batch_size: -1
          | ^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn tensors() {
    batching(
        "input { data_type: TYPE_FP32 dims: 1 }",
        expect![[r#"
        line 2, column 7: the input has no name
          | input { data_type: TYPE_FP32 dims: 1 }
          |       ^
    "#]],
    );
    batching(
        "input { name: \"A\" dims: 1 }",
        expect![[r#"
        line 2, column 7: input 'A' has no data_type
          | input { name: "A" dims: 1 }
          |       ^
          = add a line such as `data_type: TYPE_FP32`
    "#]],
    );
    batching(
        "input { name: \"A\" data_type: TYPE_FP32 }",
        expect![[r#"
        line 2, column 7: input 'A' must specify 'dims'
          | input { name: "A" data_type: TYPE_FP32 }
          |       ^
          = `dims: [ 1 ]` for a scalar, without the batch dimension
    "#]],
    );
    batching(
        "output { name: \"A\" data_type: TYPE_FP32 dims: [ 4, 0 ] }",
        expect![[r#"
        line 2, column 52: output 'A' has the dimension 0; it must be 1 or more, or -1 for any
          | output { name: "A" data_type: TYPE_FP32 dims: [ 4, 0 ] }
          |                                                    ^
    "#]],
    );
    batching(
        "output { name: \"A\" data_type: TYPE_FP32 dims: [ 4, -2 ] }",
        expect![[r#"
        line 2, column 52: output 'A' has the dimension -2; it must be 1 or more, or -1 for any
          | output { name: "A" data_type: TYPE_FP32 dims: [ 4, -2 ] }
          |                                                    ^
    "#]],
    );
    batching(
        "input [ { name: \"A\" data_type: TYPE_FP32 dims: 1 },\n{ name: \"A\" data_type: TYPE_FP32 dims: 1 } ]",
        expect![[r#"
            line 3, column 3: input 'A' is given twice
              | { name: "A" data_type: TYPE_FP32 dims: 1 } ]
              |   ^^^^
        "#]],
    );
    batching(
        "input { name: \"A\" data_type: TYPE_FP32 dims: [ 4294967296, 4294967296 ] }",
        expect![[r#"
        line 2, column 40: input 'A' has more elements than a tensor can have
          | input { name: "A" data_type: TYPE_FP32 dims: [ 4294967296, 4294967296 ] }
          |                                        ^^^^
    "#]],
    );
    batching(
        "input { name: \"A\" data_type: TYPE_FP32 dims: [ 3, 4 ] format: FORMAT_NHWC }",
        expect![[r#"
        line 2, column 55: input 'A' has the format FORMAT_NHWC, so it needs 3 dims, not 2
          | input { name: "A" data_type: TYPE_FP32 dims: [ 3, 4 ] format: FORMAT_NHWC }
          |                                                       ^^^^^^
    "#]],
    );
    batching(
        "input { name: \"A\" data_type: TYPE_FP32 dims: 3 is_shape_tensor: true }",
        expect![[r#"
        line 2, column 48: input 'A' is a shape tensor, which only TensorRT models have
          | input { name: "A" data_type: TYPE_FP32 dims: 3 is_shape_tensor: true }
          |                                                ^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "output { name: \"A\" data_type: TYPE_FP32 dims: 3 is_non_linear_format_io: true }",
        expect![[r#"
            line 2, column 49: output 'A' has is_non_linear_format_io, which only TensorRT models have
              | output { name: "A" data_type: TYPE_FP32 dims: 3 is_non_linear_format_io: true }
              |                                                 ^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    batching(
        "output { name: \"A\" data_type: TYPE_FP32 dims: 3 label_filename: \"../x\" }",
        expect![[r#"
        line 2, column 49: label_filename '../x' leaves the model's directory
          | output { name: "A" data_type: TYPE_FP32 dims: 3 label_filename: "../x" }
          |                                                 ^^^^^^^^^^^^^^
    "#]],
    );
    refused(
        "backend: \"identity\"\ninput { name: \"A\" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }",
        expect![[r#"
            line 2, column 49: input 'A' has allow_ragged_batch, which needs max_batch_size above 0
              | input { name: "A" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }
              |                                                 ^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn reshapes() {
    let input = |dims: &str, shape: &str| {
        format!("input {{ name: \"A\" data_type: TYPE_FP32 dims: {dims}\nreshape {{ shape: {shape} }} }}")
    };
    batching(
        &input("[ 4, 2 ]", "[ 9 ]"),
        expect![[r#"
        line 3, column 1: input 'A' has dims [4, 2] and a reshape [9] of different size
          | reshape { shape: [ 9 ] } }
          | ^^^^^^^
          = the elements between two free dimensions (-1) must stay as many as they are
    "#]],
    );
    batching(
        &input("[ -1, 2, -1 ]", "[ -1, -1 ]"),
        expect![[r#"
        line 3, column 1: input 'A' has dims [-1, 2, -1] and a reshape [-1, -1] of different size
          | reshape { shape: [ -1, -1 ] } }
          | ^^^^^^^
          = the elements between two free dimensions (-1) must stay as many as they are
    "#]],
    );
    batching(
        &input("[ 2 ]", "[ 0 ]"),
        expect![[r#"
        line 3, column 1: input 'A' has a reshape with a dimension below 1 that is not -1
          | reshape { shape: [ 0 ] } }
          | ^^^^^^^
    "#]],
    );
    batching(
        &input("[ 2 ]", "[ ]"),
        expect![[r#"
        line 3, column 1: input 'A' has dims [2] and a reshape [] of different size
          | reshape { shape: [ ] } }
          | ^^^^^^^
          = the elements between two free dimensions (-1) must stay as many as they are
    "#]],
    );
    refused(
        &format!("backend: \"identity\"\n{}", input("[ 1 ]", "[ ]")),
        expect![[r#"
        line 3, column 1: input 'A' has an empty reshape, which needs max_batch_size above 0
          | reshape { shape: [ ] } }
          | ^^^^^^^
    "#]],
    );
    for (dims, shape) in [("[ 1 ]", "[ ]"), ("[ 4, 2 ]", "[ 8 ]"), ("[ 2, -1, 6 ]", "[ 2, 1, -1, 3, 2 ]")] {
        let text = format!("backend: \"identity\" max_batch_size: 8 {}", input(dims, shape));
        assert!(check(&text, &Capabilities::default()).is_ok(), "{dims} {shape}");
    }
}

#[test]
fn inputs_and_outputs_made_from_the_batch() {
    let model = "input { name: \"A\" data_type: TYPE_FP32 dims: 1 } output { name: \"B\" data_type: TYPE_FP32 dims: 1 }";
    batching(
        &format!("{model}\nbatch_input {{ }}"),
        expect![[r#"
        line 3, column 13: the batch_input has no target_name
          | batch_input { }
          |             ^
        line 3, column 13: the batch_input has 0 source_input; it needs 1
          | batch_input { }
          |             ^
        line 3, column 13: the batch_input has a data_type that is neither TYPE_INT32 nor TYPE_FP32
          | batch_input { }
          |             ^
    "#]],
    );
    batching(
        &format!("{model}\nbatch_input {{ target_name: \"N\" data_type: TYPE_INT64\nsource_input: \"X\" }}"),
        expect![[r#"
            line 3, column 32: the batch_input has a data_type that is neither TYPE_INT32 nor TYPE_FP32
              | batch_input { target_name: "N" data_type: TYPE_INT64
              |                                ^^^^^^^^^
            line 4, column 15: source_input 'X' is no input of the model
              | source_input: "X" }
              |               ^^^
        "#]],
    );
    batching(
        &format!("{model}\nbatch_output {{ target_name: \"X\" source_input: \"A\" }}"),
        expect![[r#"
        line 3, column 29: the batch_output is for 'X', which is no output of the model
          | batch_output { target_name: "X" source_input: "A" }
          |                             ^^^
    "#]],
    );
    batching(
        &format!("{model}\nbatch_output {{ }}"),
        expect![[r#"
        line 3, column 14: the batch_output has no target_name
          | batch_output { }
          |              ^
        line 3, column 14: the batch_output has 0 source_input; it needs 1
          | batch_output { }
          |              ^
    "#]],
    );
}

#[test]
fn instance_groups() {
    batching(
        "instance_group { count: -1 }",
        expect![[r#"
        line 2, column 18: instance group 'm' has count -1; it must be 1 to 1024
          | instance_group { count: -1 }
          |                  ^^^^^
    "#]],
    );
    batching(
        "instance_group { count: 5000 }",
        expect![[r#"
        line 2, column 18: instance group 'm' has count 5000; it must be 1 to 1024
          | instance_group { count: 5000 }
          |                  ^^^^^
    "#]],
    );
    batching(
        "instance_group [ { },\n{ kind: KIND_CPU gpus: 0 } ]",
        expect![[r#"
        line 3, column 18: instance group 'm_1' lists gpus, but its kind is not KIND_GPU
          | { kind: KIND_CPU gpus: 0 } ]
          |                  ^^^^
    "#]],
    );
    batching(
        "instance_group { kind: KIND_GPU gpus: [ 0, -1 ] }",
        expect![[r#"
        line 2, column 33: instance group 'm' lists the GPU -1; they count from 0
          | instance_group { kind: KIND_GPU gpus: [ 0, -1 ] }
          |                                 ^^^^
    "#]],
    );
    batching(
        "instance_group { rate_limiter { resources { name: \"R\" count: 1 } } }\n\
         instance_group { rate_limiter { resources { name: \"R\" count: 1 global: true } resources { } } }",
        expect![[r#"
            line 3, column 43: resource 'R' is global in one place and not in another
              | instance_group { rate_limiter { resources { name: "R" count: 1 global: true } resources { } } }
              |                                           ^
            line 3, column 89: a resource of the rate limiter has no name
              | instance_group { rate_limiter { resources { name: "R" count: 1 global: true } resources { } } }
              |                                                                                         ^
        "#]],
    );
}

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

#[test]
fn sequences() {
    batching(
        "sequence_batching { direct { minimum_slot_utilization: 1.5 } }",
        expect![[r#"
        line 2, column 30: minimum_slot_utilization is 1.5; it must be 0 to 1
          | sequence_batching { direct { minimum_slot_utilization: 1.5 } }
          |                              ^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "sequence_batching { direct { minimum_slot_utilization: nan } }",
        expect![[r#"
        line 2, column 30: minimum_slot_utilization is NaN; it must be 0 to 1
          | sequence_batching { direct { minimum_slot_utilization: nan } }
          |                              ^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "sequence_batching { oldest { max_candidate_sequences: -1 preferred_batch_size: 9 } }",
        expect![[r#"
            line 2, column 80: preferred_batch_size 9 must be 1 to max_batch_size (8)
              | sequence_batching { oldest { max_candidate_sequences: -1 preferred_batch_size: 9 } }
              |                                                                                ^
            line 2, column 30: max_candidate_sequences is -1; it must be 0 or more
              | sequence_batching { oldest { max_candidate_sequences: -1 preferred_batch_size: 9 } }
              |                              ^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    batching(
        "input { name: \"I\" data_type: TYPE_FP32 dims: 1 }\nsequence_batching { control_input [\n\
         { name: \"I\" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0 ] } },\n\
         { name: \"J\" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] data_type: TYPE_BOOL } },\n\
         { name: \"K\" control { kind: CONTROL_SEQUENCE_CORRID fp32_false_true: [ 0, 1 ] } },\n\
         { } ] }",
        expect![[r#"
            line 4, column 3: input 'I' is given twice
              | { name: "I" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0 ] } },
              |   ^^^^
            line 4, column 21: CONTROL_SEQUENCE_START needs two values in one of its *_false_true fields
              | { name: "I" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0 ] } },
              |                     ^
              = for example `int32_false_true: [ 0, 1 ]`
            line 5, column 23: CONTROL_SEQUENCE_START is given twice; one input can carry it
              | { name: "J" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] data_type: TYPE_BOOL } },
              |                       ^^^^
            line 5, column 85: CONTROL_SEQUENCE_START has the type of its *_false_true field, so data_type is left out
              | { name: "J" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] data_type: TYPE_BOOL } },
              |                                                                                     ^^^^^^^^^
            line 6, column 21: CONTROL_SEQUENCE_CORRID needs a data_type of TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING
              | { name: "K" control { kind: CONTROL_SEQUENCE_CORRID fp32_false_true: [ 0, 1 ] } },
              |                     ^
            line 6, column 21: CONTROL_SEQUENCE_CORRID carries the sequence's id, so it has no false and true values
              | { name: "K" control { kind: CONTROL_SEQUENCE_CORRID fp32_false_true: [ 0, 1 ] } },
              |                     ^
            line 7, column 1: the control_input has no name
              | { } ] }
              | ^
            line 7, column 1: control_input '' has no control
              | { } ] }
              | ^
        "#]],
    );
    batching(
        "sequence_batching { state [\n{ },\n{ input_name: \"A\" output_name: \"B\" data_type: TYPE_FP32 dims: 2\n\
         initial_state [ { data_type: TYPE_INT8 dims: -1 },\n{ name: \"f\" data_type: TYPE_FP32 data_file: \"../f\" } ] },\n\
         { input_name: \"A\" output_name: \"B\" data_type: TYPE_FP32 dims: 2 } ] }",
        expect![[r#"
            line 3, column 1: state '' has no data_type
              | { },
              | ^
            line 3, column 1: state '' must specify 'dims'
              | { },
              | ^
              = `dims: [ 1 ]` for a scalar, without the batch dimension
            line 3, column 1: the state has no input_name
              | { },
              | ^
            line 3, column 1: the state has no output_name
              | { },
              | ^
            line 5, column 17: an initial_state of 'A' has no name
              | initial_state [ { data_type: TYPE_INT8 dims: -1 },
              |                 ^
            line 5, column 19: an initial_state of 'A' has another data_type than the state
              | initial_state [ { data_type: TYPE_INT8 dims: -1 },
              |                   ^^^^^^^^^
            line 5, column 40: an initial_state of 'A' has a dimension below 1
              | initial_state [ { data_type: TYPE_INT8 dims: -1 },
              |                                        ^^^^
            line 5, column 17: an initial_state of 'A' has neither zero_data nor data_file
              | initial_state [ { data_type: TYPE_INT8 dims: -1 },
              |                 ^
            line 6, column 34: data_file '../f' leaves the directory initial_state
              | { name: "f" data_type: TYPE_FP32 data_file: "../f" } ] },
              |                                  ^^^^^^^^^
            line 7, column 3: state input_name 'A' is given twice
              | { input_name: "A" output_name: "B" data_type: TYPE_FP32 dims: 2 } ] }
              |   ^^^^^^^^^^
            line 7, column 19: state output_name 'B' is given twice
              | { input_name: "A" output_name: "B" data_type: TYPE_FP32 dims: 2 } ] }
              |                   ^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn ensembles() {
    refused(
        "platform: \"ensemble\"",
        expect![[r#"
        line 1, column 1: platform 'ensemble' needs ensemble_scheduling with its steps
          | platform: "ensemble"
          | ^^^^^^^^
    "#]],
    );
    refused(
        "backend: \"x\"\nensemble_scheduling { }\ninstance_group { }",
        expect![[r#"
        line 3, column 16: instance group '' has count 0; it must be 1 to 1024
          | instance_group { }
          |                ^
        line 2, column 1: a model with ensemble_scheduling needs the platform 'ensemble'
          | ensemble_scheduling { }
          | ^^^^^^^^^^^^^^^^^^^
          = add `platform: "ensemble"`
        line 1, column 1: an ensemble has no backend: it computes nothing itself
          | backend: "x"
          | ^^^^^^^
        line 3, column 1: an ensemble has no instance_group: it computes nothing itself
          | instance_group { }
          | ^^^^^^^^^^^^^^
        line 2, column 1: an ensemble needs at least one step
          | ensemble_scheduling { }
          | ^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    refused(
        "platform: \"ensemble\"\ninput { name: \"I\" data_type: TYPE_FP32 dims: 1 }\n\
         output { name: \"O\" data_type: TYPE_FP32 dims: 1 }\n\
         ensemble_scheduling { step [\n\
         { model_name: \"m\" model_version: 0 input_map { key: \"a\" value: \"nowhere\" }\n\
           output_map { key: \"b\" value: \"t\" } output_map { key: \"c\" value: \"t\" } },\n\
         { } ] }",
        expect![[r#"
            line 5, column 3: the ensemble is a step of itself
              | { model_name: "m" model_version: 0 input_map { key: "a" value: "nowhere" }
              |   ^^^^^^^^^^
            line 5, column 19: model_version is 0; it must be 1 or more, or -1 for the newest
              | { model_name: "m" model_version: 0 input_map { key: "a" value: "nowhere" }
              |                   ^^^^^^^^^^^^^
            line 7, column 1: the step has no model_name
              | { } ] }
              | ^
            line 7, column 1: model_version is 0; it must be 1 or more, or -1 for the newest
              | { } ] }
              | ^
            line 7, column 1: the step of model '' has no input_map
              | { } ] }
              | ^
            line 7, column 1: the step of model '' has no output_map
              | { } ] }
              | ^
            line 6, column 47: tensor 't' is made twice, here as 'c' of 'm'
              | output_map { key: "b" value: "t" } output_map { key: "c" value: "t" } },
              |                                               ^
            line 5, column 46: tensor 'nowhere', the 'a' of 'm', is made by no step
              | { model_name: "m" model_version: 0 input_map { key: "a" value: "nowhere" }
              |                                              ^
            line 3, column 10: output 'O' is made by no step
              | output { name: "O" data_type: TYPE_FP32 dims: 1 }
              |          ^^^^
            line 2, column 9: input 'I' is used by no step
              | input { name: "I" data_type: TYPE_FP32 dims: 1 }
              |         ^^^^
            line 6, column 12: tensor 't', the 'b' of 'm', is used by nobody
              | output_map { key: "b" value: "t" } output_map { key: "c" value: "t" } },
              |            ^
              = leave it out of the output_map
            line 6, column 47: tensor 't', the 'c' of 'm', is used by nobody
              | output_map { key: "b" value: "t" } output_map { key: "c" value: "t" } },
              |                                               ^
              = leave it out of the output_map
        "#]],
    );
}

#[test]
fn warm_up_and_metrics() {
    let model = "input { name: \"A\" data_type: TYPE_FP32 dims: 1 }";
    batching(
        &format!("{model}\nmodel_warmup {{ batch_size: 9 }}"),
        expect![[r#"
        line 3, column 14: the warm-up sample has no name
          | model_warmup { batch_size: 9 }
          |              ^
        line 3, column 16: warm-up sample '' has batch_size 9; at most 8 fit
          | model_warmup { batch_size: 9 }
          |                ^^^^^^^^^^
    "#]],
    );
    batching(
        &format!(
            "{model}\nmodel_warmup {{ name: \"w\" inputs {{ key: \"X\" value {{ dims: 0 }} }}\n\
             inputs {{ key: \"A\" value {{ data_type: TYPE_FP32 dims: 1 input_data_file: \"../x\" }} }} }}"
        ),
        expect![[r#"
            line 4, column 56: input_data_file '../x' leaves the directory warmup
              | inputs { key: "A" value { data_type: TYPE_FP32 dims: 1 input_data_file: "../x" } } }
              |                                                        ^^^^^^^^^^^^^^^
            line 3, column 33: warm-up sample 'w' has 'X', which is no input of the model
              | model_warmup { name: "w" inputs { key: "X" value { dims: 0 } }
              |                                 ^
            line 3, column 33: input 'X' of warm-up sample 'w' has no data_type
              | model_warmup { name: "w" inputs { key: "X" value { dims: 0 } }
              |                                 ^
            line 3, column 52: input 'X' of warm-up sample 'w' has a dimension below 1
              | model_warmup { name: "w" inputs { key: "X" value { dims: 0 } }
              |                                                    ^^^^
            line 3, column 33: input 'X' of warm-up sample 'w' has none of zero_data, random_data and input_data_file
              | model_warmup { name: "w" inputs { key: "X" value { dims: 0 } }
              |                                 ^
        "#]],
    );
    batching(
        "model_metrics { metric_control { histogram_options { } } }",
        expect![[r#"
        line 2, column 32: the metric_control names no family
          | model_metrics { metric_control { histogram_options { } } }
          |                                ^
          = add `metric_identifier { family: "…" }`
        line 2, column 34: the histogram has no buckets
          | model_metrics { metric_control { histogram_options { } } }
          |                                  ^^^^^^^^^^^^^^^^^
    "#]],
    );
    batching(
        "model_metrics { metric_control { metric_identifier { family: \"f\" }\n\
         histogram_options { buckets: [ 2, 1 ] } } }",
        expect![[r#"
            line 3, column 21: the buckets of the histogram do not rise from each to the next
              | histogram_options { buckets: [ 2, 1 ] } } }
              |                     ^^^^^^^
        "#]],
    );
}

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
    bare("instance_group { kind: KIND_GPU gpus: [ 0, 0 ] }", expect![[""]]);
    bare(
        "dynamic_batching { default_priority_level: 1\n priority_queue_policy { key: 1 value { max_queue_size: 1 } } }",
        expect![[""]],
    );
    // What is there, but does nothing, is no finding.
    bare("dynamic_batching { default_queue_policy { allow_timeout_override: true } }", expect![[""]]);
    bare("model_repository_agents { } model_operations { } response_cache { enable: false }", expect![[""]]);
}

#[test]
fn defaults() {
    let (config, warnings) =
        check("backend: \"identity\" max_batch_size: 8 dynamic_batching { }", &Capabilities::default())
            .unwrap();
    assert!(warnings.is_empty());
    let Scheduling::Dynamic(dynamic) = &config.scheduling else { panic!("{:?}", config.scheduling) };
    assert_eq!(dynamic.preferred, [8]);
    assert_eq!(config.instance_groups[0].name, "m");
    expect![[r#"
        name: "m"
        version_policy {
          latest {
            num_versions: 1
          }
        }
        max_batch_size: 8
        instance_group {
          name: "m"
          count: 1
        }
        dynamic_batching {
          preferred_batch_size: 8
        }
        optimization {
          input_pinned_memory {
            enable: true
          }
          output_pinned_memory {
            enable: true
          }
        }
        backend: "identity"
    "#]]
    .assert_eq(&to_pbtxt(&config.proto));
}

#[test]
fn the_backend_is_found_by_what_there_is() {
    let backend = |directory: &str, text: &str, files: &[&str]| {
        let mut draft = Draft::parse(None, text.to_owned()).unwrap();
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        draft.normalise(directory, &files);
        (draft.proto.backend, draft.proto.platform)
    };
    let pair = |backend: &str, platform: &str| (backend.to_owned(), platform.to_owned());
    assert_eq!(backend("m", "", &["model.onnx"]), pair("onnxruntime", ""));
    assert_eq!(backend("m", "", &["model.pt2"]), pair("pytorch", "torch_aoti"));
    assert_eq!(backend("m", "", &["model.py", "x"]), pair("python", ""));
    assert_eq!(backend("m", "", &["model.plan", "model.py"]), pair("tensorrt", ""));
    assert_eq!(backend("m.identity", "", &["x"]), pair("identity", ""));
    assert_eq!(backend("m", "", &["x"]), pair("", ""));
    assert_eq!(backend("m", "platform: \"openvino\"", &["model.onnx"]), pair("openvino", "openvino"));
    assert_eq!(backend("m", "backend: \"identity\"", &["model.onnx"]), pair("identity", ""));
    assert_eq!(backend("m.identity", "platform: \"ensemble\"", &["model.onnx"]), pair("", "ensemble"));
}

#[test]
fn instances_of_two_backends_are_two_on_a_cpu() {
    let counts = |backend: &str| {
        let groups = "instance_group [ { kind: KIND_CPU }, { kind: KIND_CPU count: 1 }, { kind: KIND_GPU } ]";
        let (config, _) =
            check(&format!("backend: \"{backend}\" {groups}"), &Capabilities::default()).unwrap();
        config.instance_groups.iter().map(|group| (group.name.clone(), group.count)).collect::<Vec<_>>()
    };
    let named =
        |counts: [u32; 3]| (0..).zip(counts).map(|(n, count)| (format!("m_{n}"), count)).collect::<Vec<_>>();
    assert_eq!(counts("onnxruntime"), named([2, 1, 1]));
    assert_eq!(counts("identity"), named([1, 1, 1]));
}
