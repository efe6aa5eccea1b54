#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::{decode_grpc_infer, encode_grpc_infer, parameter_to_proto, parse_version};
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::{
    DataType, InferRequest, InferResponse, Limits, OutputTensor, ParameterValue as V, SequenceId,
    SharedMemoryRef, StatusCode, TensorData,
};

fn parameters<const N: usize>(list: [(&str, V); N]) -> std::collections::BTreeMap<String, InferParameter> {
    list.into_iter().map(|(k, v)| (k.to_owned(), parameter_to_proto(v))).collect()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|b| Bytes::from_static(b)).collect();
    ModelInferRequest { model_name: "m".into(), inputs, raw_input_contents, ..Default::default() }
}

fn decode(message: ModelInferRequest) -> Result<InferRequest, String> {
    decode_grpc_infer(message, &Limits::default()).map_err(|e| {
        assert_eq!(e.status, StatusCode::InvalidArg);
        e.message
    })
}

fn refusal(message: ModelInferRequest) -> String {
    decode(message).unwrap_err()
}

fn shm(size: i64) -> std::collections::BTreeMap<String, InferParameter> {
    parameters([("shared_memory_region", V::String("r".into())), ("shared_memory_byte_size", V::Int64(size))])
}

#[test]
fn raw_entries_skip_inputs_in_shared_memory() {
    let mut shared = input("S", "FP32", &[4]);
    shared.parameters = shm(16);
    let r = decode(request(
        vec![input("A", "UINT8", &[2]), shared, input("B", "BYTES", &[1])],
        &[b"ab", b"\x01\0\0\0x"],
    ))
    .unwrap();
    assert_eq!(r.inputs[0].data, TensorData::Bytes(Bytes::from_static(b"ab")));
    let part = SharedMemoryRef { region: "r".into(), offset: 0, byte_size: 16 };
    assert_eq!(r.inputs[1].data, TensorData::SharedMemory(part));
    assert_eq!(r.inputs[2].data, TensorData::Bytes(Bytes::from_static(b"\x01\0\0\0x")));
    assert!(r.binary_data_output);
}

#[test]
fn a_raw_input_is_a_slice_of_the_received_message() {
    let sent = request(vec![input("A", "UINT8", &[4])], &[b"abcd"]).encode_to_vec();
    let wire = Bytes::from(sent);
    let r = decode(ModelInferRequest::decode(wire.clone()).unwrap()).unwrap();
    let TensorData::Bytes(data) = &r.inputs[0].data else { panic!("bytes") };
    assert!(wire.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn typed_contents_land_in_the_bytes_of_their_type() {
    let typed = |datatype: &str, n: i64, contents: InferTensorContents| {
        let tensor = InferInputTensor { contents: Some(contents), ..input("A", datatype, &[n]) };
        decode(request(vec![tensor], &[])).map(|r| match &r.inputs[0].data {
            TensorData::Bytes(data) => data.to_vec(),
            _ => panic!("bytes"),
        })
    };
    let ints = |v: &[i32]| InferTensorContents { int_contents: v.into(), ..Default::default() };
    let uints = |v: &[u32]| InferTensorContents { uint_contents: v.into(), ..Default::default() };
    assert_eq!(typed("INT8", 2, ints(&[-128, 127])).unwrap(), [128, 127]);
    assert_eq!(typed("INT16", 1, ints(&[-2])).unwrap(), [254, 255]);
    assert_eq!(typed("INT32", 1, ints(&[i32::MIN])).unwrap(), i32::MIN.to_le_bytes());
    assert_eq!(typed("UINT8", 1, uints(&[255])).unwrap(), [255]);
    assert_eq!(typed("UINT16", 1, uints(&[513])).unwrap(), [1, 2]);
    assert_eq!(typed("UINT32", 1, uints(&[u32::MAX])).unwrap(), [255; 4]);
    let c = InferTensorContents { int64_contents: vec![i64::MIN], ..Default::default() };
    assert_eq!(typed("INT64", 1, c).unwrap(), i64::MIN.to_le_bytes());
    let c = InferTensorContents { uint64_contents: vec![u64::MAX], ..Default::default() };
    assert_eq!(typed("UINT64", 1, c).unwrap(), [255; 8]);
    let c = InferTensorContents { bool_contents: vec![true, false], ..Default::default() };
    assert_eq!(typed("BOOL", 2, c).unwrap(), [1, 0]);
    let c = InferTensorContents { fp32_contents: vec![f32::INFINITY], ..Default::default() };
    assert_eq!(typed("FP32", 1, c).unwrap(), f32::INFINITY.to_le_bytes());
    let c = InferTensorContents { fp64_contents: vec![0.5], ..Default::default() };
    assert_eq!(typed("FP64", 1, c).unwrap(), 0.5f64.to_le_bytes());
    let c = InferTensorContents { bytes_contents: vec![b"hi".to_vec(), vec![0xff]], ..Default::default() };
    assert_eq!(typed("BYTES", 2, c).unwrap(), b"\x02\0\0\0hi\x01\0\0\0\xff");
    assert_eq!(typed("INT8", 0, InferTensorContents::default()).unwrap(), b"");

    assert_eq!(
        typed("INT8", 1, ints(&[128])).unwrap_err(),
        "input 'A': int_contents: 128 does not fit 8 bits"
    );
    assert_eq!(
        typed("INT8", 2, ints(&[1])).unwrap_err(),
        "input 'A': shape [2] needs 2 elements in 'contents', got 1"
    );
    assert_eq!(
        typed("UINT8", 1, ints(&[1])).unwrap_err(),
        "input 'A': UINT8 data must be given in 'uint_contents', but 'int_contents' is set"
    );
    assert_eq!(
        typed("FP16", 1, ints(&[1])).unwrap_err(),
        "input 'A': FP16 data must be given in 'raw_input_contents'"
    );
}

#[test]
fn mixing_and_counting_of_raw_entries() {
    let contents = InferTensorContents { int_contents: vec![1], ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents.clone()), ..input("A", "INT32", &[1]) };
    assert_eq!(
        refusal(request(vec![typed.clone(), input("B", "INT8", &[1])], &[b"x"])),
        "input 'A': contents field must not be specified when using raw_input_contents for model 'm'"
    );
    assert_eq!(
        refusal(request(vec![input("A", "INT8", &[1]), input("B", "INT8", &[1])], &[b"x"])),
        "input 'B': has no entry in raw_input_contents, which has 1 entries for model 'm'"
    );
    assert_eq!(
        refusal(request(vec![input("A", "INT8", &[1])], &[b"x", b"y"])),
        "unexpected additional input data for model 'm': raw_input_contents has 2 entries, 1 are needed"
    );
    assert_eq!(
        refusal(request(vec![InferInputTensor { parameters: shm(4), ..typed }], &[])),
        "input 'A': has both 'contents' and 'shared_memory_region'"
    );
    assert_eq!(
        refusal(request(vec![input("A", "FP32", &[1, 2])], &[b"abcd"])),
        "[request id: <id_unknown>] input byte size mismatch for input 'A' for model 'm'. Expected 8, got 4"
    );
    assert_eq!(
        refusal(request(vec![input("A", "FP32", &[-1])], &[b"abcd"])),
        "[request id: <id_unknown>] input 'A' for model 'm': shape [-1] has the negative dimension -1"
    );
    assert!(
        refusal(request(vec![input("A", "FP32", &[1 << 62, 8])], &[b""]))
            .contains("causes total element count to exceed")
    );
    assert!(
        refusal(request(vec![input("A", "FP32", &[1; 65])], &[b"abcd"]))
            .contains("65 dimensions, at most 64")
    );
    assert!(refusal(request(vec![input("A", "fp32", &[1])], &[b"abcd"])).contains("unknown datatype 'fp32'"));
}

#[test]
fn parameters_are_strict() {
    let with = |key: &str, value: V| {
        decode(ModelInferRequest { parameters: parameters([(key, value)]), ..request(vec![], &[]) })
    };
    assert_eq!(with("sequence_id", V::Int64(4)).unwrap().sequence.id, Some(SequenceId::Number(4)));
    assert_eq!(with("timeout", V::Int64(9)).unwrap().timeout_us, 9);
    assert_eq!(with("priority", V::Uint64(2)).unwrap().priority, 2);
    assert!(with("timeout", V::Int64(-1)).is_err());
    assert!(with("triton_grpc", V::Bool(true)).is_err());
    assert_eq!(with("free", V::Double(1.5)).unwrap().parameters.get("free"), Some(&V::Double(1.5)));
    // The answer is raw whatever the caller says.
    assert!(with("binary_data_output", V::Bool(false)).unwrap().binary_data_output);
    let mut message = request(vec![], &[]);
    message.parameters.insert("x".into(), InferParameter { parameter_choice: None });
    assert_eq!(refusal(message), "parameter 'x' has no value");

    let output = |key: &str, value: V| {
        let outputs =
            vec![InferRequestedOutputTensor { name: "O".into(), parameters: parameters([(key, value)]) }];
        decode(ModelInferRequest { outputs, ..request(vec![], &[]) })
    };
    assert_eq!(output("classification", V::Int64(5)).unwrap().outputs[0].classification, Some(5));
    assert_eq!(
        output("classification", V::Uint64(5)).unwrap_err(),
        "requested output 'O': parameter 'classification' must be a non-negative int64, got uint64"
    );
    assert!(output("classification", V::Int64(0)).unwrap_err().contains("between 1 and"));
    assert!(
        output("shared_memory_region", V::String("r".into())).unwrap_err().contains("needs the parameter")
    );
    assert_eq!(output("binary_data", V::Bool(true)).unwrap().outputs[0].binary, None);
    let twice = vec![InferRequestedOutputTensor { name: "O".into(), ..Default::default() }; 2];
    assert_eq!(
        refusal(ModelInferRequest { outputs: twice, ..request(vec![], &[]) }),
        "Duplicate output name 'O' is not allowed in a request"
    );
}

#[test]
fn versions_are_empty_or_decimal() {
    assert_eq!(parse_version("").unwrap(), None);
    assert_eq!(parse_version("12").unwrap(), Some(12));
    for bad in ["-1", "+1", "a", "1.0", " 1", "99999999999999999999"] {
        assert!(parse_version(bad).unwrap_err().message.contains(&format!("'{bad}'")));
    }
}

#[test]
fn answers_move_their_tensors() {
    let data = Bytes::from(vec![1u8; 8]);
    let part = SharedMemoryRef { region: "r".into(), offset: 4, byte_size: 8 };
    let tensor = |name: &str, data: &Bytes, shared_memory| OutputTensor {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: [1, 2].as_slice().into(),
        data: data.clone(),
        binary: false,
        shared_memory,
        held: None,
    };
    let response = InferResponse {
        id: "i".into(),
        model_name: "m".into(),
        model_version: 7,
        parameters: [("f", V::Bool(true))].into_iter().collect(),
        outputs: vec![tensor("A", &data, None), tensor("S", &Bytes::new(), Some(part))],
    };
    let message = encode_grpc_infer(response).unwrap();
    assert_eq!((message.id.as_str(), message.model_version.as_str()), ("i", "7"));
    assert_eq!(message.raw_output_contents[0].as_ptr(), data.as_ptr());
    assert!(message.raw_output_contents[1].is_empty());
    assert_eq!(message.outputs[0].datatype, "FP32");
    let want = parameters([
        ("shared_memory_region", V::String("r".into())),
        ("shared_memory_byte_size", V::Int64(8)),
        ("shared_memory_offset", V::Int64(4)),
    ]);
    assert_eq!(message.outputs[1].parameters, want);
    assert_eq!(message.parameters, parameters([("f", V::Bool(true))]));

    let wrong = InferResponse { outputs: vec![tensor("A", &data.slice(1..), None)], ..Default::default() };
    assert_eq!(encode_grpc_infer(wrong).unwrap_err().status, StatusCode::Internal);
}

proptest! {
    #[test]
    fn every_type_comes_back_raw(number in 1i32..15, shape in proptest::collection::vec(0i64..4, 0..4), seed in any::<u8>()) {
        let datatype = DataType::from_proto(number).unwrap();
        let count = shape.iter().product::<i64>() as usize;
        let data = match datatype.byte_size() {
            Some(size) => (0..count * size).map(|i| seed.wrapping_mul(31).wrapping_add(i as u8)).collect(),
            None => crate::bytes_tensor::encode(vec![[seed].repeat(usize::from(seed % 5)); count]).unwrap(),
        };
        let output = OutputTensor {
            name: "A".into(),
            datatype,
            shape: shape.as_slice().into(),
            data: data.clone().into(),
            binary: true,
            shared_memory: None,
            held: None,
        };
        let answer = encode_grpc_infer(InferResponse { outputs: vec![output], ..Default::default() }).unwrap();
        let tensor = input("A", &answer.outputs[0].datatype, &answer.outputs[0].shape);
        let message = ModelInferRequest { raw_input_contents: answer.raw_output_contents, ..request(vec![tensor], &[]) };
        let r = decode(message).unwrap();
        prop_assert_eq!((r.inputs[0].datatype, r.inputs[0].shape.as_slice()), (datatype, shape.as_slice()));
        prop_assert_eq!(&r.inputs[0].data, &TensorData::Bytes(data.into()));
    }

    #[test]
    fn any_message_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(message) = ModelInferRequest::decode(bytes.as_slice()) {
            let _ = decode_grpc_infer(message, &Limits::default());
        }
    }

    #[test]
    fn any_shape_and_length_is_answered(shape in proptest::collection::vec(any::<i64>(), 0..5), datatype in 1i32..15) {
        let datatype = DataType::from_proto(datatype).unwrap();
        let tensor = InferInputTensor { shape, ..input("A", datatype.wire_name(), &[]) };
        let _ = decode(request(vec![tensor], &[b"12345678"]));
    }
}
