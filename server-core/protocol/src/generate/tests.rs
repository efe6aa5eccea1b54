#![allow(clippy::unwrap_used)]

use expect_test::expect;

use super::{decode_generate, encode_generate};
use crate::bytes_tensor;
use crate::{
    DataType, InferRequest, InferResponse, Limits, OutputTensor, ParameterValue as V, TensorData, TensorMeta,
};

fn meta(name: &str, datatype: DataType, dims: &[i64]) -> TensorMeta {
    TensorMeta { name: name.into(), datatype, dims: dims.into(), optional: false }
}

fn table() -> Vec<TensorMeta> {
    vec![
        meta("text_input", DataType::Bytes, &[-1, 1]),
        meta("max_tokens", DataType::Int32, &[1]),
        meta("ids", DataType::Int64, &[-1, -1]),
        meta("pairs", DataType::Fp32, &[-1, 2]),
        meta("stream", DataType::Bool, &[1]),
    ]
}

fn decode(text: &str) -> Result<InferRequest, String> {
    decode_generate("m", Some(2), text.as_bytes(), &table(), &Limits::default()).map_err(|e| {
        assert_eq!(e.status.http_status(), 400);
        e.message
    })
}

fn show(r: &InferRequest) -> String {
    let inputs = r.inputs.iter().map(|i| {
        let TensorData::Bytes(data) = &i.data else { panic!("bytes") };
        format!("{} {} {:?} {}\n", i.name, i.datatype, i.shape.as_slice(), data.escape_ascii())
    });
    inputs.collect::<String>() + &format!("id {:?} {:?}", r.id, r.parameters)
}

#[test]
fn keys_become_inputs_or_parameters() {
    let r = decode(
        r#"{"id":"q","text_input":"hi","extra":1.5,"ids":[1,2,3],
            "parameters":{"max_tokens":7,"stream":true,"seed":3,"priority":1},"pairs":[1,2]}"#,
    )
    .unwrap();
    assert_eq!((r.priority, r.model_version, r.binary_data_output), (1, Some(2), false));
    expect![[r#"
        text_input BYTES [1, 1] \x02\x00\x00\x00hi
        ids INT64 [1, 3] \x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00
        max_tokens INT32 [1] \x07\x00\x00\x00
        stream BOOL [1] \x01
        pairs FP32 [1, 2] \x00\x00\x80?\x00\x00\x00@
        id "q" Parameters([("extra", Double(1.5)), ("seed", Int64(3))])"#]]
    .assert_eq(&show(&r));
}

#[test]
fn variable_dimensions_take_what_the_fixed_ones_leave() {
    let shape = |text: &str| decode(text).unwrap().inputs[0].shape.to_vec();
    // The batch dimension is the only variable one, so it takes the number of elements.
    assert_eq!(shape(r#"{"text_input":["a","b","c"]}"#), [3, 1]);
    assert_eq!(shape(r#"{"pairs":[1,2,3,4]}"#), [2, 2]);
    assert_eq!(shape(r#"{"ids":5}"#), [1, 1]);
    assert_eq!(shape(r#"{"ids":[]}"#), [1, 0]);
    let text = "The schema can not convert input 'pairs' to tensor with proper shape";
    assert_eq!(decode(r#"{"pairs":[1,2,3]}"#).unwrap_err(), text);
    assert_eq!(decode(r#"{"max_tokens":[1,2]}"#).unwrap_err(), text.replace("pairs", "max_tokens"));
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let short =
        |text: &str| decode(text).unwrap_err().replace("failed to parse the request JSON buffer: ", "");
    assert_eq!(
        short(r#"{"ids":[[1]]}"#),
        "input 'ids': attempt to access JSON non-number as number, got an array at 8"
    );
    assert_eq!(
        short(r#"{"text_input":{}}"#),
        "input 'text_input': attempt to access JSON non-string as string, got an object at 14"
    );
    assert_eq!(
        short(r#"{"x":{"y":1}}"#),
        "parameter 'x' has invalid type. It must be a bool, a number or a string, got an object"
    );
    assert_eq!(
        short(r#"{"parameters":{"parameters":{}}}"#),
        "Converting keyword: 'parameters': parameter 'parameters' has invalid type. It must be a bool, a number or a string, got an object"
    );
    assert_eq!(
        short(r#"{"id":1}"#),
        "Unable to parse 'id': attempt to access JSON non-string as string, got a number at 6"
    );
    assert_eq!(short(r#"{"ids":1,"parameters":{"ids":1}}"#), "input 'ids' already exists in request");
    assert_eq!(short(r#"{"parameters":1}"#), "Expected JSON object for keyword: 'parameters'");
    assert_eq!(short("[]"), "attempt to access JSON non-object as object, got an array at 0");
    assert_eq!(short(""), "the text ends where a value should stand at 0");
    assert!(short(r#"{"triton_x":1}"#).contains("are reserved for the server"));
    let inputs = [meta("parameters", DataType::Bytes, &[1])];
    let clash = decode_generate("m", None, br#"{"parameters":{}}"#, &inputs, &Limits::default());
    assert!(clash.unwrap_err().message.starts_with("the key 'parameters' is also the name of an input"));
    let small = Limits { max_body: 10, ..Limits::default() };
    let large = decode_generate("m", None, b"{\"ids\":[1]}", &table(), &small).unwrap_err();
    assert_eq!(large.message, "request body of 11 bytes exceeds the maximum allowed value of 10 bytes");
}

fn output(name: &str, datatype: DataType, shape: &[i64], data: Vec<u8>) -> OutputTensor {
    OutputTensor {
        name: name.into(),
        datatype,
        shape: shape.into(),
        data: data.into(),
        binary: false,
        shared_memory: None,
        held: None,
    }
}

#[test]
fn outputs_become_sorted_keys() {
    let response = InferResponse {
        id: "q".into(),
        model_name: "m".into(),
        model_version: 1,
        parameters: [("z", V::Bool(true)), ("a", V::Int64(1))].into_iter().collect(),
        outputs: vec![
            output("text_output", DataType::Bytes, &[1], bytes_tensor::encode(["Par\"is"]).unwrap()),
            output("many", DataType::Int32, &[1, 2], vec![1, 0, 0, 0, 2, 0, 0, 0]),
            output("none", DataType::Fp32, &[0], vec![]),
            output("nothing", DataType::Bytes, &[0], vec![]),
        ],
    };
    let text = encode_generate(&response).unwrap();
    expect![[r#"{"a":1,"id":"q","many":[1,2],"model_name":"m","model_version":"1","none":[],"nothing":[],"text_output":"Par\"is","z":true}"#]]
    .assert_eq(std::str::from_utf8(&text).unwrap());
}

#[test]
fn an_output_that_json_cannot_carry_is_an_error() {
    let one = |o| {
        let response = InferResponse { outputs: vec![o], ..Default::default() };
        encode_generate(&response).unwrap_err().message
    };
    assert!(one(output("O", DataType::Fp16, &[1], vec![0, 0])).starts_with("FP16 output 'O' cannot"));
    assert_eq!(
        one(output("O", DataType::Fp32, &[2], vec![0; 4])),
        "output 'O' has 4 bytes, its shape needs 8"
    );
    assert_eq!(
        one(output("O", DataType::Bytes, &[1], vec![9, 0, 0, 0])),
        "output 'O': element 0 has a length of 9 bytes but only 0 are left"
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in r#"[{}\[\]",:a-z0-9 \\-]{0,40}"#, value in proptest::prelude::any::<i64>()) {
        let _ = decode(&text);
        let _ = decode(&format!("{{\"ids\":{text}}}"));
        let r = decode(&format!("{{\"ids\":[{value}]}}")).unwrap();
        proptest::prop_assert_eq!(&r.inputs[0].data, &TensorData::Bytes(value.to_le_bytes().to_vec().into()));
    }
}
