//! An answer's outputs, sent back as a request's inputs, are the same tensors; and no body breaks the decoder.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::bytes_tensor;
use crate::{
    DataType, HttpInfer, InferResponse, Limits, OutputTensor, TensorData, decode_http_infer,
    encode_http_infer,
};

fn tensor() -> impl Strategy<Value = (DataType, Vec<i64>, Vec<u8>)> {
    let shape = proptest::collection::vec(0i64..4, 0..4);
    (select(DataType::ALL.to_vec()), shape).prop_flat_map(|(datatype, shape)| {
        let count = shape.iter().product::<i64>() as usize;
        let data = match datatype.byte_size() {
            None => proptest::collection::vec(".{0,8}", count)
                .prop_map(|list| bytes_tensor::encode(list).unwrap())
                .boxed(),
            Some(size) => proptest::collection::vec(any::<u8>(), count * size).boxed(),
        };
        (Just(datatype), Just(shape), data)
    })
}

/// A NaN loses its payload on the way through JSON, and a BOOL byte becomes 0 or 1.
fn normal(datatype: DataType, data: &[u8]) -> Vec<u8> {
    match datatype {
        DataType::Bool => data.iter().map(|b| u8::from(*b != 0)).collect(),
        DataType::Fp32 => data
            .as_chunks()
            .0
            .iter()
            .flat_map(|b| {
                let v = f32::from_le_bytes(*b);
                (if v.is_nan() { f32::NAN } else { v }).to_le_bytes()
            })
            .collect(),
        DataType::Fp64 => data
            .as_chunks()
            .0
            .iter()
            .flat_map(|b| {
                let v = f64::from_le_bytes(*b);
                (if v.is_nan() { f64::NAN } else { v }).to_le_bytes()
            })
            .collect(),
        _ => data.to_vec(),
    }
}

/// An encoded answer turned into a request: the same JSON with `inputs` for `outputs`.
fn answer(tensors: &[(DataType, Vec<i64>, Vec<u8>)], binary: &[bool]) -> (Bytes, Option<usize>) {
    let outputs = tensors.iter().enumerate().map(|(i, (datatype, shape, data))| OutputTensor {
        name: format!("T{i}"),
        datatype: *datatype,
        shape: shape.as_slice().into(),
        data: data.clone().into(),
        binary: binary[i] || matches!(datatype, DataType::Fp16 | DataType::Bf16),
        shared_memory: None,
        held: None,
    });
    let response = InferResponse {
        model_name: "m".into(),
        model_version: 1,
        outputs: outputs.collect(),
        ..Default::default()
    };
    let body = encode_http_infer(&response).unwrap();
    let whole = body.pieces.concat();
    let at = whole.windows(9).position(|w| w == b"\"outputs\"").unwrap();
    let body_bytes = [&whole[..at], b"\"inputs\"", &whole[at + 9..]].concat();
    (body_bytes.into(), body.json_len.map(|n| n - 1))
}

proptest! {
    #[test]
    fn every_type_comes_back(tensors in proptest::collection::vec(tensor(), 1..5), binary in proptest::collection::vec(any::<bool>(), 5)) {
        let (body, header) = answer(&tensors, &binary);
        let HttpInfer::Request(request) = decode_http_infer("m", None, body, header, &Limits::default()).unwrap() else {
            panic!("a request")
        };
        prop_assert_eq!(request.inputs.len(), tensors.len());
        for (i, (datatype, shape, data)) in tensors.iter().enumerate() {
            let input = &request.inputs[i];
            prop_assert_eq!((input.datatype, input.shape.as_slice()), (*datatype, shape.as_slice()));
            let TensorData::Bytes(got) = &input.data else { panic!("bytes") };
            if binary[i] {
                prop_assert_eq!(got, data);
            } else {
                prop_assert_eq!(normal(*datatype, got), normal(*datatype, data));
            }
        }
    }

    #[test]
    fn cut_and_changed_bodies_are_answered(
        tensors in proptest::collection::vec(tensor(), 1..4),
        binary in proptest::collection::vec(any::<bool>(), 4),
        cut in any::<Index>(),
        change in any::<(Index, u8)>(),
        header in proptest::option::of(0usize..600),
    ) {
        let (body, true_header) = answer(&tensors, &binary);
        let limits = Limits { max_body: 4096, ..Limits::default() };
        let mut changed = body.to_vec();
        changed[change.0.index(body.len())] = change.1;
        let cut = body.slice(..cut.index(body.len()));
        for (body, header) in [(cut, true_header), (changed.into(), true_header), (body, header)] {
            let text = body.len();
            if let Ok(HttpInfer::Request(request)) = decode_http_infer("m", None, body, header, &limits) {
                // What a request holds is bounded by the text (eight bytes for `1,`) and by the limit.
                let held: usize = request.inputs.iter().map(|i| match &i.data {
                    TensorData::Bytes(data) => data.len(),
                    _ => 0,
                }).sum();
                prop_assert!(held <= text * 4 && held <= 2 * limits.max_body);
            }
        }
    }

    #[test]
    fn nesting_does_not_change_a_tensor(values in proptest::collection::vec(any::<i32>(), 1..30), brackets in proptest::collection::vec(any::<bool>(), 30)) {
        let mut text = String::new();
        for (i, value) in values.iter().enumerate() {
            let (open, close) = if brackets[i] { ("[[", "]]") } else { ("", "") };
            text += &format!("{}{open}{value}{close}", if i > 0 { "," } else { "" });
        }
        let body = super::one("INT32", &format!("[{}]", values.len()), &format!("[{text}]"));
        let request = super::decode(&body, b"").unwrap();
        let want: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        prop_assert_eq!(super::bytes(&request, 0), want);
    }
}
