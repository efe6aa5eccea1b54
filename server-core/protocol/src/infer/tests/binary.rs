use bytes::Bytes;

use super::{bytes, decode, refusal};
use crate::{
    DataType, HttpInfer, InferRequest, Limits, TensorData, TensorMeta, decode_http_infer, parse_header_length,
};

const TWO: &str = r#"{"inputs":[
 {"name":"A","datatype":"INT32","shape":[1,2],"parameters":{"binary_data_size":8}},
 {"name":"J","datatype":"INT8","shape":[1],"data":[5]},
 {"name":"B","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":10}}]}"#;

#[test]
fn tensors_are_slices_of_the_body_in_order() {
    let tail = b"\x01\0\0\0\x02\0\0\0\x02\0\0\0hi\0\0\0\0";
    let body = Bytes::from([TWO.as_bytes(), tail].concat());
    let header = Some(TWO.len());
    let Ok(HttpInfer::Request(r)) = decode_http_infer("m", Some(3), body.clone(), header, &Limits::default())
    else {
        panic!("a request")
    };
    assert_eq!(r.model_version, Some(3));
    assert_eq!(bytes(&r, 0), b"\x01\0\0\0\x02\0\0\0");
    assert_eq!(bytes(&r, 1), [5]);
    assert_eq!(bytes(&r, 2), b"\x02\0\0\0hi\0\0\0\0");
    // No copy: the slice points into the body.
    assert_eq!(bytes(&r, 0).as_ptr(), body[TWO.len()..].as_ptr());
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let whole = b"\x01\0\0\0\x02\0\0\0\x02\0\0\0hi\0\0\0\0";
    let longer = [whole.as_slice(), b"xyz"].concat();
    assert_eq!(
        refusal(TWO, &longer),
        "unexpected additional input data for model 'm': 3 bytes after the last input"
    );
    assert_eq!(
        refusal(TWO, &whole[..17]),
        "unexpected size for input 'B', expecting 10 additional bytes for model 'm', got 9"
    );
    // Without the header the whole body is JSON and there is nothing behind it.
    assert_eq!(
        refusal(TWO, b""),
        "unexpected size for input 'A', expecting 8 additional bytes for model 'm', got 0"
    );
    let one = |datatype: &str, shape: &str, size: usize| {
        format!(
            r#"{{"id":"7","inputs":[{{"name":"A","datatype":"{datatype}","shape":{shape},
            "parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    assert_eq!(
        refusal(&one("INT32", "[2]", 4), b"\x01\0\0\0"),
        "[request id: 7] input byte size mismatch for input 'A' for model 'm'. Expected 8, got 4"
    );
    assert_eq!(
        refusal(&one("BYTES", "[2]", 4), b"\0\0\0\0"),
        "[request id: 7] expected 2 string elements for inference input 'A' for model 'm', got 1"
    );
    assert_eq!(
        refusal(&one("BYTES", "[1]", 12), &[0; 12]),
        "[request id: 7] unexpected number of string elements 2 for inference input 'A' for model 'm', expecting 1"
    );
    assert_eq!(
        refusal(&one("BYTES", "[1]", 5), b"\xff\0\0\0a"),
        "[request id: 7] inference input 'A' for model 'm': element 0 has a length of 255 bytes but only 1 are left"
    );
    assert!(refusal(&one("INT32", "[2]", usize::MAX), b"1234").contains("got 4"));
}

#[test]
fn a_header_longer_than_the_body_is_refused() {
    let limits = Limits::default();
    let body = Bytes::from_static(b"{\"inputs\":[]}");
    for header in [14, usize::MAX] {
        let error = decode_http_infer("m", None, body.clone(), Some(header), &limits).unwrap_err();
        let want = format!("Inference-Header-Content-Length is {header}, but the body has only 13 bytes");
        assert_eq!(error.message, want);
    }
    assert!(decode_http_infer("m", None, body, Some(13), &limits).is_ok());
}

#[test]
fn the_header_is_a_decimal_number() {
    assert_eq!(parse_header_length("0").unwrap(), 0);
    assert_eq!(parse_header_length("120").unwrap(), 120);
    for bad in ["", "-1", "+1", "1x", " 1", "99999999999999999999999"] {
        let text = parse_header_length(bad).unwrap_err().message;
        assert_eq!(text, format!("Unable to parse Inference-Header-Content-Length, got: {bad}"));
    }
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let limits = Limits { max_body: 40, ..Limits::default() };
    let error = decode_http_infer("m", None, Bytes::from(vec![b' '; 41]), None, &limits).unwrap_err();
    assert_eq!(error.message, "request body of 41 bytes exceeds the maximum allowed value of 40 bytes");
    // 81 bytes of text that would expand to 88 bytes of tensor.
    let text = r#"{"inputs":[{"datatype":"FP64","data":[1,2,3,4,5,6,7,8,9,1,2],"shape":[11],"name":"I"}]}"#;
    let limits = Limits { max_body: 87, ..Limits::default() };
    let error = decode_http_infer("m", None, Bytes::from(text), None, &limits).unwrap_err();
    assert_eq!(
        error.message,
        "input: Unable to parse 'data': the tensor's size exceeds the maximum allowed value of 87 bytes"
    );
}

fn raw(datatype: DataType, dims: &[i64], batched: bool, body: &'static [u8]) -> Result<InferRequest, String> {
    let decoded = decode_http_infer("m", None, Bytes::from_static(body), Some(0), &Limits::default());
    let Ok(HttpInfer::Raw(raw)) = decoded else { panic!("a raw request") };
    let meta = TensorMeta { name: "I".into(), datatype, dims: dims.into(), optional: false };
    raw.into_request(&[meta], batched).map_err(|e| e.message)
}

#[test]
fn a_raw_body_is_the_only_input() {
    let r = raw(DataType::Int16, &[-1, 2, -1], true, b"123456781234").unwrap();
    assert!(r.binary_data_output);
    assert_eq!(r.inputs[0].shape.as_slice(), [1, 2, 3]);
    assert_eq!(bytes(&r, 0), b"123456781234");
    let r = raw(DataType::Bytes, &[-1, 1], true, b"text").unwrap();
    assert_eq!(r.inputs[0].shape.as_slice(), [1, 1]);
    assert_eq!(bytes(&r, 0), b"\x04\0\0\0text");
    assert_eq!(
        raw(DataType::Int16, &[4], false, b"123").unwrap_err(),
        "raw binary request for input 'I' of model 'm' with shape [4]: 3 bytes of INT16 do not fit"
    );
    assert!(
        raw(DataType::Int16, &[-1, -1], false, b"12")
            .unwrap_err()
            .ends_with("there are more than one variable-sized dimension")
    );
    assert!(raw(DataType::Int16, &[0, -1], false, b"12").unwrap_err().ends_with("do not fit"));
    assert!(
        raw(DataType::Bytes, &[2], false, b"12")
            .unwrap_err()
            .eq("For BYTE datatype raw input 'I', the model must have input shape [1]")
    );
}

#[test]
fn a_raw_body_needs_a_model_with_one_input() {
    let decoded = decode_http_infer("m", None, Bytes::new(), Some(0), &Limits::default());
    let Ok(HttpInfer::Raw(raw)) = decoded else { panic!("a raw request") };
    assert_eq!(
        raw.into_request(&[], false).unwrap_err().message,
        "Raw request must only have 1 input (found 1) to be deduced but got 0 inputs in 'm' model"
    );
}

#[test]
fn shared_memory_is_compared_with_the_shape() {
    let text = r#"{"inputs":[{"name":"A","datatype":"FP32","shape":[4],"parameters":
        {"shared_memory_region":"r","shared_memory_byte_size":12}}]}"#;
    assert_eq!(
        refusal(text, b""),
        "[request id: <id_unknown>] input byte size mismatch for input 'A' for model 'm'. Expected 16, got 12"
    );
    let fits = text.replace("12", "16");
    assert!(matches!(decode(&fits, b"").unwrap().inputs[0].data, TensorData::SharedMemory(_)));
}
