//! What comes in goes out, whatever it is.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types, reason = "real threads, real time")]

use std::time::{Duration, Instant};

use trireme_testing::{DataType, Model};

fn config(data_type: &str, more: &str) -> String {
    let tensor = |name| format!(r#"{{ "name": "{name}", "data_type": "{data_type}", "dims": [-1] }}"#);
    let tensors = |kind| {
        let [a, b] = [0, 1].map(|number| tensor(format!("{kind}{number}")));
        format!("[{a}, {b}]")
    };
    format!(
        r#"{{ "max_batch_size": 8, "input": {}, "output": {} {more} }}"#,
        tensors("INPUT"),
        tensors("OUTPUT")
    )
}

fn load(data_type: &str, more: &str) -> Model {
    Model::load(&trireme_identity::trireme_backend_probe, &config(data_type, more)).unwrap()
}

fn parameters(list: &[(&str, &str)]) -> String {
    let one = |(name, value): &(&str, &str)| format!(r#""{name}": {{ "string_value": "{value}" }}"#);
    format!(r#", "parameters": {{ {} }}"#, list.iter().map(one).collect::<Vec<_>>().join(", "))
}

#[test]
fn every_type_comes_back_as_it_was() {
    use DataType::*;
    let all = [Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bytes, Bf16];
    for data_type in all {
        let model = load(&data_type.config_name(), "");
        let data = match data_type.byte_size() {
            Some(size) => (0..size * 3).map(|byte| (byte % 2) as u8).collect(),
            None => trireme_sdk::encode_bytes(&["", "a", "zwölf"]),
        };
        let request = model.request().raw("INPUT0", data_type, &[1, 3], std::slice::from_ref(&data));
        let answer = request.send().answer();
        assert_eq!(answer.outputs.len(), 1, "{data_type:?}: an input that is absent has no output");
        let output = answer.output("OUTPUT0");
        assert_eq!((output.data_type, &output.shape, &output.data), (data_type as u32, &vec![1, 3], &data));
    }
}

#[test]
fn pieces_and_tensors_without_elements_come_back() {
    let model = load("TYPE_INT16", "");
    let pieces = [vec![1], vec![0, 2, 0], vec![3, 0]];
    let answer = model
        .request()
        .raw("INPUT1", DataType::Int16, &[1, 0], &[])
        .raw("INPUT0", DataType::Int16, &[1, 3], &pieces)
        .send()
        .answer();
    assert_eq!(answer.values::<i16>("OUTPUT0"), [1, 2, 3]);
    assert_eq!((answer.shape("OUTPUT1"), answer.output("OUTPUT1").data.len()), (&[1, 0][..], 0));
}

#[test]
fn only_wanted_outputs_are_made() {
    let model = load("TYPE_INT64", "");
    let request = model.request().input("INPUT0", &[1, 1], &[1i64]).input("INPUT1", &[1, 1], &[2i64]);
    let answer = request.output("OUTPUT1").send().answer();
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.values::<i64>("OUTPUT1"), [2]);
}

#[test]
fn each_request_of_a_batch_has_its_own_answer() {
    let model = load("TYPE_STRING", "");
    let texts = ["one", "two", "three"];
    let batch = texts.map(|text| model.request().input("INPUT0", &[1, 1], &[text]));
    let answers = model.send(batch.into());
    for (pending, text) in answers.into_iter().zip(texts) {
        assert_eq!(pending.answer().texts("OUTPUT0"), [text]);
    }
    let spans = model.finish();
    assert_eq!((spans.len(), spans[0].requests), (1, 3));
}

#[test]
fn delays_are_waited_for_once_a_batch_and_grow_with_the_instance() {
    let settings = parameters(&[("execute_delay_ms", "20"), ("instance_wise_delay_multiplier", "3")]);
    let model = load("TYPE_INT32", &format!(r#"{settings}, "instance_group": [{{ "count": 3 }}]"#));
    let mut answers = Vec::new();
    for _ in 0..12 {
        let request = || model.request().input("INPUT0", &[1, 1], &[7i32]);
        answers.extend(model.send(vec![request(), request()]));
    }
    answers.into_iter().for_each(|pending| assert_eq!(pending.answer().values::<i32>("OUTPUT0"), [7]));
    let spans = model.finish();
    assert_eq!(spans.len(), 12);
    // Instance n waits 20 ms × max(3 n, 1).
    for (index, least) in [(0, 20), (1, 60), (2, 120)] {
        let mut own = spans.iter().filter(|span| span.instance == index).map(|span| span.end - span.start);
        let first = own.next().unwrap();
        assert!(own.chain([first]).all(|took| took >= Duration::from_millis(least)), "{index}: {spans:?}");
    }
}

#[test]
fn three_instances_run_exactly_three_batches_at_once() {
    let settings = parameters(&[("execute_delay_ms", "30")]);
    let model = load("TYPE_INT32", &format!(r#"{settings}, "instance_group": [{{ "count": 3 }}]"#));
    let requests = (0..9).map(|number| model.request().input("INPUT0", &[1, 1], &[number]).send());
    for (number, pending) in requests.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(pending.answer().values::<i32>("OUTPUT0"), [number as i32]);
    }
    let spans = model.finish();
    let at_once = |at: Instant| spans.iter().filter(|span| span.start <= at && at < span.end).count();
    assert_eq!(spans.len(), 9);
    assert_eq!(spans.iter().map(|span| at_once(span.start)).max(), Some(3), "{spans:?}");
}

#[test]
fn creation_delay_holds_up_the_load() {
    let start = Instant::now();
    let model = load("TYPE_INT32", &parameters(&[("creation_delay_sec", "1")]));
    assert!(start.elapsed() >= Duration::from_secs(1));
    drop(model);
}

#[test]
fn a_delay_that_is_no_number_is_named() {
    let config = config("TYPE_INT32", &parameters(&[("execute_delay_ms", "soon")]));
    let error = Model::load(&trireme_identity::trireme_backend_probe, &config).err().unwrap();
    assert_eq!(error.message, "parameter 'execute_delay_ms' has the value 'soon', which is not valid");
}
