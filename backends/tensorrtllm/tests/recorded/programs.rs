//! `trireme-gpu` on the GPU that records, and without any.

use std::path::Path;
use std::process::{Command, Output};

use crate::recorder;

const SHAPE: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 320, "hidden_size": 256,
    "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "bos_token_id": 1, "eos_token_id": 2}"#;

fn model(shape: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), shape).unwrap();
    dir
}

const CONFIG: &str = r#"{"max_batch_size": 24, "parameters": {"load_format": {"string_value": "dummy"}}}"#;

fn run(model: &Path, arguments: &[&str], gpu: bool) -> (Option<i32>, String, String) {
    run_with(model, CONFIG, arguments, gpu)
}

fn run_with(model: &Path, config: &str, arguments: &[&str], gpu: bool) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trireme-gpu"));
    command
        .arg(arguments[0])
        .arg(model)
        .args(["--config", config, "--tuning-cache", "off", "--kernel-cache", "off"])
        .args(&arguments[1..]);
    command.env_remove("LD_LIBRARY_PATH");
    if gpu {
        command.env("LD_LIBRARY_PATH", recorder::folder());
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn explain_and_profile_print_their_tables() {
    let dir = model(SHAPE);
    let (code, out, err) = run(dir.path(), &["explain", "--rows", "20"], true);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("a step of 20 sequences at 512 positions, fusion on"), "{out}");
    for kernel in
        ["| qkv | 2 |", "| attention | 2 |", "| down | 2 |", "| head | 1 |", "| sample | 2 |", "| step | "]
    {
        assert!(out.contains(kernel), "{kernel}: {out}");
    }
    assert!(!out.contains("rope_write"), "it is part of the product: {out}");
    let (code, out, _) =
        run(dir.path(), &["explain", "--rows", "20", "--context", "8", "--fusion", "false"], true);
    assert!(code == Some(0) && out.contains("| rope_write | 2 |") && out.contains("fusion off"), "{out}");
    let (code, out, err) = run(dir.path(), &["profile"], true);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("choices of kernels were timed"), "{out}");
    assert!(out.lines().any(|l| l.starts_with("| 24 | 14.6 % | fused")), "{out}");
    assert_eq!(out.lines().filter(|l| l.starts_with("| ")).count(), 1 + 17, "{out}");
}

#[test]
fn the_models_own_settings_hold_where_no_flag_says_otherwise() {
    let dir = model(SHAPE);
    let config = |more: &str, groups: &str| {
        format!(
            r#"{{"max_batch_size": 64, "instance_group": [{groups}], "parameters": {{
                "load_format": {{"string_value": "dummy"}}{more}}}}}"#
        )
    };
    let off = config(r#", "fusion": {"string_value": "false"}"#, "");
    let (_, out, _) = run_with(dir.path(), &off, &["explain"], true);
    assert!(out.contains("fusion off") && out.contains("| rope_write | 2 |"), "{out}");
    let (_, out, _) = run_with(dir.path(), &off, &["explain", "--fusion", "true"], true);
    assert!(out.contains("fusion on") && !out.contains("rope_write"), "{out}");
    // Of two profiles that which the instance group names.
    let value = |n: u32, key: &str, v: u32| format!(r#", "profile.{n}.{key}": {{"string_value": "{v}"}}"#);
    let profile = |n, batch: u32| {
        ["batch.min", "batch.opt", "batch.max"].map(|key| value(n, key, batch)).concat()
            + &[("tokens.min", 1), ("tokens.opt", 256), ("tokens.max", 512)]
                .map(|(key, v)| value(n, key, v))
                .concat()
    };
    let both = profile(0, 8) + &profile(1, 64);
    let (code, out, err) = run_with(dir.path(), &config(&both, r#"{"profile": ["1"]}"#), &["profile"], true);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let sizes: Vec<&str> =
        out.lines().filter_map(|l| l.strip_prefix("| ")?.split(' ').next()).skip(1).collect();
    assert_eq!(sizes, ["64"], "{out}");
    let (code, out, err) = run_with(dir.path(), &config(&both, r#"{"profile": ["0"]}"#), &["profile"], true);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("max_batch_size is 64, the shape profiles allow at most 8"), "{err}");
    let long = config(r#", "max_context": {"string_value": "4096"}"#, "");
    let (code, _, err) = run_with(dir.path(), &long, &["explain"], true);
    assert!(
        code == Some(1) && err.contains("'max_context' is 4096, the model was trained for at most 512"),
        "{err}"
    );
    let twice = config("", r#"{"profile": ["1"]}, {"profile": []}"#);
    let (_, _, err) = run_with(dir.path(), &twice, &["profile"], true);
    assert!(err.contains("the instance groups name different profiles"), "{err}");
    let (_, _, err) = run_with(dir.path(), CONFIG, &["profile", "--gpu", "-1"], true);
    assert!(!err.is_empty(), "{err}");
}

#[test]
fn a_flag_outside_of_the_model_is_refused() {
    let dir = model(SHAPE);
    for (arguments, said) in [
        (&["explain", "--rows", "25"][..], "--rows is 25, this model has 1 to 24 sequences"),
        (&["explain", "--rows", "0"], "--rows is 0, this model has 1 to 24 sequences"),
        (
            &["explain", "--context", "513"],
            "--context is 513, this model has 1 to 512 positions of a sequence",
        ),
        (&["profile", "--context", "0"], "--context is 0, this model has 1 to 512 positions of a sequence"),
        (&["profile", "--gpu", "4"], "this machine has 1 GPUs, GPU 4 is not one of them"),
    ] {
        let (code, _, err) = run(dir.path(), arguments, true);
        assert_eq!((code, err), (Some(1), format!("error: {said}\n")));
    }
}

#[test]
fn without_a_gpu_profile_says_what_needs_none() {
    let dir = model(SHAPE);
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let (code, out, err) = run(dir.path(), &["profile"], false);
    assert_eq!(code, Some(1));
    assert_eq!(err, "error: there is no NVIDIA driver on this machine (libcuda.so.1 cannot be opened)\n");
    assert!(out.starts_with("without a GPU: weights 2 MB, "), "{out}");
    // 24 sequences of 512 positions, and the first is never more than 16 blocks of 32.
    assert!(out.contains("384 KV blocks of 32 positions = "), "{out}");
    assert!(out.ends_with("| 16 | 0.0 % |\n| 24 | 14.6 % |\n"), "{out}");
    let (code, out, err) = run(dir.path(), &["explain"], false);
    assert!(code == Some(1) && out.is_empty() && err.lines().count() == 1, "{out}{err}");
    // What has no kernel is said with or without one.
    let dir = model(&SHAPE.replace("\"head_dim\": 64", "\"head_dim\": 48"));
    let (code, _, err) = run(dir.path(), &["profile"], true);
    assert_eq!(code, Some(1));
    assert!(
        err.contains(
            "the model is not supported: heads of 48 (there are kernels for [64, 80, 96, 128, 256])"
        ),
        "{err}"
    );
}
