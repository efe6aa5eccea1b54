//! Inputs and outputs.

use expect_test::expect;
use trireme_model_config::Capabilities;

use crate::{batching, check, refused};

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
