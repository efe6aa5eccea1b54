//! Sequences and ensembles.

use expect_test::expect;

use crate::{batching, refused};

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
            line 5, column 19: an initial_state of 'A' has another data_type than the state
              | initial_state [ { data_type: TYPE_INT8 dims: -1 },
              |                   ^^^^^^^^^
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
            line 7, column 1: the step has no model_name
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
