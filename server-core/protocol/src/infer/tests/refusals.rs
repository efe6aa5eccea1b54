use super::{one, refusal};

/// The refusal without the words that every broken JSON text gets.
fn short(json: &str) -> String {
    refusal(json, b"").replace("failed to parse the request JSON buffer: ", "")
}

#[test]
fn a_json_array_of_the_wrong_length() {
    assert_eq!(
        short(&one("FP32", "[1,16]", "[1,2,3]")),
        "input 'I': shape [1,16] needs 16 elements in 'data', got 3"
    );
    assert_eq!(
        short(&one("BYTES", "[1]", r#"["a","b"]"#)),
        "input 'I': shape [1] needs 1 elements in 'data', got 2"
    );
}

#[test]
fn shapes_that_overflow_or_are_no_shapes() {
    let big = "[4611686018427387904,8]";
    let text = "shape [4611686018427387904,8] causes total element count to exceed maximum size of 18446744073709551615";
    assert_eq!(short(&one("FP32", big, "[1]")), format!("input 'I': {text}"));
    let bytes = "[4611686018427387904]";
    assert_eq!(
        short(&one("FP32", bytes, "[1]")),
        "input 'I': byte size overflow for input with shape [4611686018427387904]"
    );
    let json = format!(
        r#"{{"inputs":[{{"name":"I","datatype":"FP32","shape":{bytes},"parameters":{{"binary_data_size":0}}}}]}}"#
    );
    assert_eq!(short(&json), "input 'I': byte size overflow for input with shape [4611686018427387904]");
    assert_eq!(
        short(&one("FP32", "[-1]", "[1]")),
        "input 'I': Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer, got -1 at 50"
    );
    assert_eq!(
        short(&one("FP32", "[1.0]", "[1]")),
        "input 'I': Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer, got 1.0 at 50"
    );
    assert_eq!(
        short(&one("FP32", "4", "[1]")),
        "input 'I': Unable to parse 'shape': attempt to access JSON non-array as array, got a number at 49"
    );
    let dims = format!("[{}1]", "1,".repeat(64));
    assert!(short(&one("FP32", &dims, "[1]")).contains("more than 64 dimensions"));
    assert!(
        short(&one("FP32", "[9223372036854775808]", "[1]"))
            .contains("dimension 9223372036854775808 is too large")
    );
}

#[test]
fn nesting_over_the_limit() {
    let data = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    // The body, `inputs` and the input are three levels themselves.
    super::decode(&one("FP32", "[1]", &data(97)), b"").unwrap();
    assert!(
        short(&one("FP32", "[1]", &data(98)))
            .contains("JSON nesting depth exceeds maximum allowed limit (100)")
    );
    assert!(
        short(&"[".repeat(1 << 20)).contains("attempt to access JSON non-object as object, got an array")
    );
    let other = format!(r#"{{"x":{}}}"#, data(1 << 16));
    assert!(short(&other).contains("JSON nesting depth exceeds maximum allowed limit (100)"));
}

#[test]
fn values_of_another_type() {
    for (datatype, data, want) in [
        ("INT8", "[128]", "128 is out of range for INT8"),
        ("UINT8", "[-1]", "-1 is out of range for UINT8"),
        ("INT64", "[9223372036854775808]", "9223372036854775808 is out of range for INT64"),
        ("INT32", "[1.0]", "1.0 is not a whole number as INT32 needs"),
        ("FP32", "[\"1\"]", "attempt to access JSON non-number as number, got a string"),
        ("FP32", "[null]", "attempt to access JSON non-number as number, got null"),
        ("BOOL", "[1]", "attempt to access JSON non-boolean as boolean, got a number"),
        ("BYTES", "[1]", "attempt to access JSON non-string as string, got a number"),
        ("FP32", "1", "attempt to access JSON non-array as array, got a number"),
        ("FP16", "[1]", "FP16 data cannot be sent as JSON, use the binary data format"),
        ("BF16", "[1]", "BF16 data cannot be sent as JSON, use the binary data format"),
        ("STRING", "[1]", "unknown datatype 'STRING', known are BOOL, UINT8"),
    ] {
        let text = short(&one(datatype, "[1]", data));
        assert!(text.starts_with("input 'I': ") && text.contains(want), "{text}");
    }
}

#[test]
fn fields_that_are_missing_doubled_or_contradict() {
    let input = |fields: &str| short(&format!(r#"{{"inputs":[{{{fields}}}]}}"#));
    let base = r#""name":"I","datatype":"INT8","shape":[1]"#;
    assert_eq!(short("{}"), "the request has no 'inputs'");
    assert_eq!(
        short(r#"{"inputs":{}}"#),
        "Unable to parse 'inputs': attempt to access JSON non-array as array, got an object at 10"
    );
    assert_eq!(short(r#"{"inputs":[],"inputs":[]}"#), "'inputs' is given twice in one object");
    assert_eq!(
        short(r#"{"id":7,"inputs":[]}"#),
        "Unable to parse 'id': attempt to access JSON non-string as string, got a number at 6"
    );
    assert_eq!(input(r#""datatype":"INT8","shape":[1],"data":[1]"#), "input: has no 'name'");
    assert_eq!(input(r#""name":"I","shape":[1],"data":[1]"#), "input 'I': has no 'datatype'");
    assert_eq!(input(r#""name":"I","datatype":"INT8","data":[1]"#), "input 'I': has no 'shape'");
    assert_eq!(
        input(base),
        "input 'I': has no data: give 'data', or the parameter 'binary_data_size' or 'shared_memory_region'"
    );
    assert_eq!(
        input(&format!(r#"{base},"data":[1],"parameters":{{"binary_data_size":1}}"#)),
        "input 'I': has more than one of 'data', 'binary_data_size' and 'shared_memory_region'"
    );
    assert_eq!(
        input(&format!(r#"{base},"parameters":{{"shared_memory_region":"r"}}"#)),
        "input 'I': 'shared_memory_region' needs the parameter 'shared_memory_byte_size'"
    );
    let max = u64::MAX;
    assert_eq!(
        input(&format!(
            r#"{base},"parameters":{{"shared_memory_region":"r","shared_memory_byte_size":2,"shared_memory_offset":{max}}}"#
        )),
        "input 'I': Invalid offset for shared memory region: it and the size add up past 64 bits"
    );
    assert_eq!(
        input(&format!(r#"{base},"parameters":{{"binary_data_size":-1}}"#)),
        "input 'I': parameter 'binary_data_size': attempt to access JSON non-unsigned-integer as unsigned-integer, got -1 at 86"
    );
    let pair = format!(r#"{{"inputs":[{{{base},"data":[1]}},{{{base},"data":[1]}}]}}"#);
    assert_eq!(short(&pair), "input 'I' already exists in request");
}

#[test]
fn outputs_and_parameters_that_cannot_be() {
    let outputs = |list: &str| short(&format!(r#"{{"inputs":[],"outputs":[{list}]}}"#));
    assert_eq!(
        outputs(r#"{"name":"O"},{"name":"O"}"#),
        "Duplicate output name 'O' is not allowed in a request"
    );
    let many: Vec<_> = (0..40).map(|i| format!(r#"{{"name":"O{}"}}"#, i % 39)).collect();
    assert_eq!(outputs(&many.join(",")), "Duplicate output name 'O0' is not allowed in a request");
    let flood = vec![r#"{"name":"O"}"#; 5000].join(",");
    assert_eq!(outputs(&flood), "more than 4096 requested outputs in one request");
    assert_eq!(outputs("{}"), "requested output: has no 'name'");
    assert_eq!(
        outputs(r#"{"name":"O","parameters":{"classification":0}}"#),
        "requested output: parameter 'classification' must be between 1 and 4294967295"
    );
    assert_eq!(
        outputs(
            r#"{"name":"O","parameters":{"classification":1,"shared_memory_region":"r","shared_memory_byte_size":1}}"#
        ),
        "requested output 'O': 'shared_memory_region' cannot be combined with 'binary_data' or 'classification'"
    );
    let parameters = |list: &str| short(&format!(r#"{{"inputs":[],"parameters":{{{list}}}}}"#));
    assert_eq!(
        parameters(r#""a":[1]"#),
        "parameter 'a' has invalid type. It must be a bool, a number or a string, got an array"
    );
    assert_eq!(
        parameters(r#""a":null"#),
        "parameter 'a' has invalid type. It must be a bool, a number or a string, got null"
    );
    assert_eq!(
        parameters(r#""a":1e999"#),
        "parameter 'a' has invalid type. It must be a bool, a number or a string, got 1e999"
    );
    assert_eq!(parameters(r#""a":1,"a":2"#), "parameter 'a' is given twice");
    assert!(parameters(r#""triton_key":1"#).contains("are reserved for the server"));
    let flood: Vec<_> = (0..1100).map(|i| format!("\"p{i}\":1")).collect();
    assert_eq!(parameters(&flood.join(",")), "more than 1024 parameters in one request");
}
