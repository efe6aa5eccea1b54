//! Name, backend, instances, warm-up, metrics.

use expect_test::expect;

use crate::{batching, refused};

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
