use super::{bytes, decode, one, refusal};
use crate::{ParameterValue, RequestedOutput, SequenceId, SharedMemoryRef, TensorData};

fn data(datatype: &str, shape: &str, text: &str) -> Vec<u8> {
    bytes(&decode(&one(datatype, shape, text), b"").unwrap(), 0).to_vec()
}

#[test]
fn each_type_lands_in_its_bytes() {
    assert_eq!(data("BOOL", "[2]", "[true,false]"), [1, 0]);
    assert_eq!(data("UINT8", "[2]", "[0,255]"), [0, 255]);
    assert_eq!(data("INT8", "[3]", "[-128,127,-0]"), [128, 127, 0]);
    assert_eq!(data("UINT16", "[1]", "[65535]"), [255, 255]);
    assert_eq!(data("UINT16", "[1]", "[-0]"), [0, 0]);
    assert_eq!(data("INT16", "[1]", "[-2]"), [254, 255]);
    assert_eq!(data("UINT32", "[1]", "[4294967295]"), u32::MAX.to_le_bytes());
    assert_eq!(data("INT32", "[1]", "[-2147483648]"), i32::MIN.to_le_bytes());
    assert_eq!(data("UINT64", "[1]", "[18446744073709551615]"), u64::MAX.to_le_bytes());
    assert_eq!(data("INT64", "[1]", "[-9223372036854775808]"), i64::MIN.to_le_bytes());
    assert_eq!(data("FP32", "[2]", "[0.1,3]"), [0.1f32.to_le_bytes(), 3f32.to_le_bytes()].concat());
    assert_eq!(data("FP64", "[1]", "[1e-300]"), 1e-300f64.to_le_bytes());
    assert_eq!(data("BYTES", "[3]", r#"["hi","","\u0000é"]"#), b"\x02\0\0\0hi\0\0\0\0\x03\0\0\0\0\xc3\xa9");
}

#[test]
fn nesting_is_free_as_long_as_the_count_fits() {
    let flat = data("INT32", "[2,3]", "[1,2,3,4,5,6]");
    for text in
        ["[[1,2,3],[4,5,6]]", "[[1,2],[3,[4,5]],6]", "[[[[1]],2,[],3,4,5,6]]", " [ 1 , 2,3,\n4,5, [6] ] "]
    {
        assert_eq!(data("INT32", "[2,3]", text), flat, "{text}");
    }
    assert_eq!(data("FP32", "[0,4]", "[]"), b"");
    assert_eq!(data("FP32", "[]", "[1.5]"), 1.5f32.to_le_bytes());
}

#[test]
fn numbers_that_are_not_finite_are_words() {
    let all = data("FP32", "[5]", "[NaN,Infinity,-Infinity,Inf,-Inf]");
    let all: Vec<f32> = all.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert!(all[0].is_nan());
    let inf = f32::INFINITY;
    assert_eq!(all[1..], [inf, -inf, inf, -inf]);
    assert!(refusal(&one("FP32", "[1]", "[1e39]"), b"").contains("1e39 is out of range for FP32"));
    assert!(refusal(&one("FP64", "[1]", "[-1e309]"), b"").contains("-1e309 is out of range for FP64"));
    assert!(refusal(&one("INT32", "[1]", "[NaN]"), b"").contains("NaN is not a whole number as INT32 needs"));
}

#[test]
fn data_may_stand_before_type_and_shape() {
    let text = r#"{"inputs":[{"data":[[7,8]],"shape":[2],"name":"I","datatype":"UINT8"}]}"#;
    assert_eq!(bytes(&decode(text, b"").unwrap(), 0), [7, 8]);
    let late = r#"{"inputs":[{"data":[7,300],"shape":[2],"name":"I","datatype":"UINT8"}]}"#;
    assert_eq!(refusal(late, b""), "input 'I': Unable to parse 'data': 300 is out of range for UINT8 at 25");
}

#[test]
fn everything_a_request_can_say() {
    let text = r#"{
        "id": "a\"1", "unknown": {"x": [null]},
        "parameters": {"sequence_id": "s", "sequence_start": true, "sequence_end": false, "priority": 2,
                       "timeout": 1500, "binary_data_output": true, "b": true, "i": -3,
                       "u": 18446744073709551615, "d": 2.5, "s": "t",
                       "triton_enable_empty_final_response": true},
        "inputs": [{"name":"A","datatype":"INT8","shape":[1,2],"data":[1,2]},
                   {"name":"B","datatype":"FP32","shape":[4],"parameters":
                     {"shared_memory_region":"r","shared_memory_byte_size":16,"shared_memory_offset":8}}],
        "outputs": [{"name":"X"}, {"name":"Y","parameters":{"binary_data":false}},
                    {"name":"Z","parameters":{"classification":3}},
                    {"name":"S","parameters":{"shared_memory_region":"r","shared_memory_byte_size":4}}]
    }"#;
    let r = decode(text, b"").unwrap();
    assert_eq!((r.id.as_str(), r.model_name.as_str(), r.model_version), ("a\"1", "m", None));
    assert_eq!(r.sequence.id, Some(SequenceId::Text("s".into())));
    assert_eq!((r.sequence.start, r.sequence.end, r.priority, r.timeout_us), (true, false, 2, 1500));
    assert!(r.binary_data_output && r.enable_empty_final_response);
    let list: Vec<_> = r.parameters.iter().map(|(k, v)| (k, v.clone())).collect();
    assert_eq!(
        list,
        [
            ("b", ParameterValue::Bool(true)),
            ("i", ParameterValue::Int64(-3)),
            ("u", ParameterValue::Uint64(u64::MAX)),
            ("d", ParameterValue::Double(2.5)),
            ("s", ParameterValue::String("t".into())),
        ]
    );
    let part = SharedMemoryRef { region: "r".into(), offset: 8, byte_size: 16 };
    assert_eq!(r.inputs[1].data, TensorData::SharedMemory(part));
    let name = |n: &str| RequestedOutput { name: n.into(), ..Default::default() };
    assert_eq!(r.outputs[0], name("X"));
    assert_eq!(r.outputs[1], RequestedOutput { binary: Some(false), ..name("Y") });
    assert_eq!(r.outputs[2], RequestedOutput { classification: Some(3), ..name("Z") });
    assert_eq!(r.outputs[3].shared_memory.as_ref().unwrap().offset, 0);
    assert_eq!((r.wants_binary("X"), r.wants_binary("Y"), r.wants_binary("other")), (true, false, true));
}
