//! A backend in a process of its own is served by the same ABI, so that isolation stays possible.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::io::BufReader;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use trireme_host::abi::{DType, StatusCode};
use trireme_tests::pipe::{Message, Tensor};
use trireme_tests::{places, process};

const LIMIT: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"{
    "input": [
        { "name": "INPUT0", "data_type": "TYPE_INT64", "dims": [-1] },
        { "name": "INPUT1", "data_type": "TYPE_STRING", "dims": [-1] },
        { "name": "INPUT2", "data_type": "TYPE_FP32", "dims": [-1, 2] }
    ],
    "output": [
        { "name": "OUTPUT0", "data_type": "TYPE_INT64", "dims": [-1] },
        { "name": "OUTPUT1", "data_type": "TYPE_STRING", "dims": [-1] },
        { "name": "OUTPUT2", "data_type": "TYPE_FP32", "dims": [-1, 2] }
    ]
}"#;

fn start() -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipe_host"))
        .arg(places::backend("identity").unwrap())
        .args(["identity", CONFIG])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, to, BufReader::new(from))
}

fn tensor(kind: &str, number: usize, dtype: DType, shape: &[i64], data: Vec<u8>) -> Tensor {
    Tensor { name: format!("{kind}{number}"), dtype: dtype.0, shape: shape.to_vec(), data }
}

/// Message `id` with tensors of its own; the answer is the same with other names.
fn message(kind: &str, id: u64) -> Message {
    let count = id as usize % 7;
    let integers = (0..count).flat_map(|n| (id as i64 * 1000 - n as i64).to_le_bytes()).collect();
    let text = |n| "ä".repeat(n * id as usize);
    let texts = (0..count)
        .map(text)
        .flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat());
    let floats = (0..2 * id).flat_map(|n| (n as f32 / 3.0).to_le_bytes()).collect();
    let tensors = vec![
        tensor(kind, 0, DType::INT64, &[count as i64], integers),
        tensor(kind, 1, DType::BYTES, &[count as i64], texts.collect()),
        tensor(kind, 2, DType::FP32, &[id as i64, 2], floats),
    ];
    Message { id, tensors, ..Message::default() }
}

#[test]
fn identity_is_served_across_a_pipe() {
    let (mut child, mut to, mut from) = start();
    // Written beside the reading: a pipe holds less than all of it.
    let writer =
        std::thread::spawn(move || (0..100).for_each(|id| message("INPUT", id).write(&mut to).unwrap()));
    let reader = std::thread::spawn(move || {
        let answers = std::iter::from_fn(|| Message::read(&mut from).unwrap());
        answers.collect::<Vec<Message>>()
    });
    let status = process::wait(&mut child, LIMIT).unwrap();
    writer.join().unwrap();
    let answers = reader.join().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(answers.len(), 100);
    answers.iter().zip(0..).for_each(|(answer, id)| assert_eq!(*answer, message("OUTPUT", id)));
}

#[test]
fn a_bad_request_is_answered_and_a_bad_frame_ends_the_child_only() {
    let (mut child, mut to, mut from) = start();
    let mut unknown = message("INPUT", 3);
    unknown.tensors[0].name = "NOBODY".to_owned();
    unknown.write(&mut to).unwrap();
    let answer = Message::read(&mut from).unwrap().unwrap();
    assert_eq!((answer.id, answer.status), (3, StatusCode::INVALID_ARG.0));
    assert_eq!(answer.text, "the model has no input 'NOBODY'");
    std::io::Write::write_all(&mut to, &u32::MAX.to_le_bytes()).unwrap();
    assert!(!process::wait(&mut child, LIMIT).unwrap().success());
    assert_eq!(Message::read(&mut from).unwrap(), None);
}
