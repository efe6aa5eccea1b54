use bytes::Bytes;

use crate::bytes_tensor;
use crate::{
    DataType, InferResponse, OutputTensor, ParameterValue, SharedMemoryRef, StatusCode, encode_http_infer,
};

fn output(name: &str, datatype: DataType, shape: &[i64], data: Vec<u8>, binary: bool) -> OutputTensor {
    OutputTensor {
        name: name.into(),
        datatype,
        shape: shape.into(),
        data: data.into(),
        binary,
        shared_memory: None,
        held: None,
    }
}

fn response(outputs: Vec<OutputTensor>) -> InferResponse {
    InferResponse { model_name: "m".into(), model_version: 3, outputs, ..Default::default() }
}

fn json(outputs: Vec<OutputTensor>) -> String {
    let body = encode_http_infer(&response(outputs)).unwrap();
    assert_eq!((body.json_len, body.content_type()), (None, "application/json"));
    String::from_utf8(body.pieces.concat()).unwrap()
}

#[test]
fn keys_stand_in_their_order() {
    let mut r =
        response(vec![output("O", DataType::Int32, &[1, 2], b"\x01\0\0\0\xff\xff\xff\xff".to_vec(), false)]);
    r.id = "x\"".into();
    r.parameters = [
        ("b", ParameterValue::Bool(true)),
        ("i", ParameterValue::Int64(-1)),
        ("u", ParameterValue::Uint64(u64::MAX)),
        ("d", ParameterValue::Double(0.5)),
        ("s", ParameterValue::String("t".into())),
    ]
    .into_iter()
    .collect();
    let body = encode_http_infer(&r).unwrap();
    expect_test::expect![[r#"{"id":"x\"","model_name":"m","model_version":"3","parameters":{"b":true,"i":-1,"u":18446744073709551615,"d":0.5,"s":"t"},"outputs":[{"name":"O","datatype":"INT32","shape":[1,2],"data":[1,-1]}]}"#]]
    .assert_eq(std::str::from_utf8(&body.pieces.concat()).unwrap());
}

#[test]
fn each_type_is_rendered() {
    let le = |v: &[f32]| v.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
    let text = |t, n: i64, data: Vec<u8>| {
        let text = json(vec![output("O", t, &[n], data, false)]);
        text[text.find("\"data\":").unwrap() + 7..text.len() - 3].to_owned()
    };
    assert_eq!(text(DataType::Bool, 2, vec![1, 0]), "[true,false]");
    assert_eq!(text(DataType::Uint8, 1, vec![200]), "[200]");
    assert_eq!(text(DataType::Int8, 1, vec![200]), "[-56]");
    assert_eq!(text(DataType::Uint16, 1, vec![1, 2]), "[513]");
    assert_eq!(text(DataType::Int16, 1, vec![255, 255]), "[-1]");
    assert_eq!(text(DataType::Uint64, 1, vec![255; 8]), "[18446744073709551615]");
    assert_eq!(text(DataType::Int64, 1, i64::MIN.to_le_bytes().to_vec()), "[-9223372036854775808]");
    assert_eq!(text(DataType::Fp32, 3, le(&[0.1, 1.0, -2.5e-8])), "[0.1,1.0,-2.5e-8]");
    assert_eq!(text(DataType::Fp32, 2, le(&[f32::NAN, f32::NEG_INFINITY])), "[NaN,-Infinity]");
    assert_eq!(text(DataType::Fp64, 1, 0.1f64.to_le_bytes().to_vec()), "[0.1]");
    assert_eq!(text(DataType::Bytes, 2, bytes_tensor::encode(["a\"\0", ""]).unwrap()), r#"["a\"\u0000",""]"#);
    assert_eq!(text(DataType::Fp32, 0, vec![]), "[]");
}

#[test]
fn binary_outputs_follow_the_json() {
    let outputs = vec![
        output("A", DataType::Fp16, &[2], b"1234".to_vec(), true),
        output("J", DataType::Uint8, &[1], vec![9], false),
        output("B", DataType::Uint8, &[3], b"xyz".to_vec(), true),
    ];
    let body = encode_http_infer(&response(outputs)).unwrap();
    assert_eq!(body.content_type(), "application/octet-stream");
    assert_eq!(body.pieces.len(), 1);
    let whole = body.pieces.concat();
    assert_eq!(whole.len(), body.len());
    let (json, tail) = whole.split_at(body.json_len.unwrap());
    assert_eq!(tail, b"1234xyz");
    expect_test::expect![[r#"{"model_name":"m","model_version":"3","outputs":[{"name":"A","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}},{"name":"J","datatype":"UINT8","shape":[1],"data":[9]},{"name":"B","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}}]}"#]]
    .assert_eq(std::str::from_utf8(json).unwrap());
}

#[test]
fn large_binary_outputs_are_not_copied() {
    let big = Bytes::from(vec![7u8; 1 << 20]);
    let mut large = output("A", DataType::Uint8, &[1 << 20], vec![], true);
    large.data = big.clone();
    let small = output("B", DataType::Uint8, &[1], vec![1], true);
    let empty = output("C", DataType::Uint8, &[0], vec![], true);
    let body = encode_http_infer(&response(vec![large, small, empty])).unwrap();
    assert_eq!(body.pieces.len(), 3);
    assert_eq!(body.pieces[1].as_ptr(), big.as_ptr());
    assert_eq!(body.json_len, Some(body.pieces[0].len()));
}

#[test]
fn without_binary_bytes_the_answer_is_json() {
    let text = json(vec![output("A", DataType::Uint8, &[0], vec![], true)]);
    assert!(text.contains(r#""parameters":{"binary_data_size":0}"#), "{text}");
    let mut shm = output("A", DataType::Fp32, &[4], vec![], true);
    shm.shared_memory = Some(SharedMemoryRef { region: "r".into(), offset: 8, byte_size: 16 });
    expect_test::expect![[
        r#"{"model_name":"m","model_version":"3","outputs":[{"name":"A","datatype":"FP32","shape":[4]}]}"#
    ]]
    .assert_eq(&json(vec![shm]));
    expect_test::expect![[r#"{"model_name":"m","model_version":"3","outputs":[]}"#]].assert_eq(&json(vec![]));
}

#[test]
fn what_json_cannot_carry_is_an_error() {
    let error = |o| {
        let e = encode_http_infer(&response(vec![o])).unwrap_err();
        (e.status, e.message)
    };
    let (status, text) = error(output("A", DataType::Bf16, &[1], vec![0, 0], false));
    assert_eq!(status, StatusCode::InvalidArg);
    assert!(text.contains("BF16 output 'A' cannot be sent as JSON"), "{text}");
    let bytes = bytes_tensor::encode([b"ok".as_slice(), b"\xff"]).unwrap();
    let (status, text) = error(output("A", DataType::Bytes, &[2], bytes, false));
    assert_eq!(status, StatusCode::InvalidArg);
    assert!(text.starts_with("element 1 of output 'A' is not UTF-8"), "{text}");
    let (status, text) = error(output("A", DataType::Int32, &[2], vec![0; 4], true));
    assert_eq!((status, text.as_str()), (StatusCode::Internal, "output 'A' has 4 bytes, its shape needs 8"));
}
