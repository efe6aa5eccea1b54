//! Defaults that are filled in.

use expect_test::expect;
use trireme_model_config::{Capabilities, Draft, Scheduling, to_pbtxt};

use crate::check;

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
