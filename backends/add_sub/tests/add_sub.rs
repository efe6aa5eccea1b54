//! Sums and differences of every type, and what it says to inputs that it cannot add.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use trireme_testing::{DataType, IntoTensor, Model, StatusCode};

fn config(types: [&str; 4]) -> String {
    let [a, b, c, d] = types;
    let tensor =
        |name: &str, ty: &str| format!(r#"{{ "name": "{name}", "data_type": "{ty}", "dims": [-1] }}"#);
    format!(
        r#"{{ "max_batch_size": 8, "input": [{}, {}], "output": [{}, {}] }}"#,
        tensor("INPUT0", a),
        tensor("INPUT1", b),
        tensor("OUTPUT0", c),
        tensor("OUTPUT1", d)
    )
}

fn load(data_type: DataType) -> Model {
    let name = data_type.config_name();
    Model::load(&trireme_add_sub::trireme_backend_probe, &config([&name; 4])).unwrap()
}

/// Adds and subtracts the extremes and two small numbers.
macro_rules! types {
    ($($test:ident $ty:ty: $least:expr, $most:expr => $sums:expr, $differences:expr;)*) => {$(
        #[test]
        fn $test() {
            let model = load(<$ty as IntoTensor>::DATA_TYPE);
            let a: [$ty; 4] = [$least, $most, 7 as $ty, 3 as $ty];
            let b: [$ty; 4] = [1 as $ty, 1 as $ty, 2 as $ty, 3 as $ty];
            let request = model.request().input("INPUT0", &[2, 2], &a).input("INPUT1", &[2, 2], &b);
            let answer = request.send().answer();
            assert_eq!(answer.shape("OUTPUT0"), [2, 2]);
            let (sums, differences): ([$ty; 4], [$ty; 4]) = ($sums, $differences);
            assert_eq!(answer.values::<$ty>("OUTPUT0"), sums);
            assert_eq!(answer.values::<$ty>("OUTPUT1"), differences);
        }
    )*};
}

types! {
    int8_wraps i8: i8::MIN, i8::MAX => [-127, i8::MIN, 9, 6], [i8::MAX, 126, 5, 0];
    int16_wraps i16: i16::MIN, i16::MAX => [-32767, i16::MIN, 9, 6], [i16::MAX, 32766, 5, 0];
    int32_wraps i32: i32::MIN, i32::MAX => [i32::MIN + 1, i32::MIN, 9, 6], [i32::MAX, i32::MAX - 1, 5, 0];
    int64_wraps i64: i64::MIN, i64::MAX => [i64::MIN + 1, i64::MIN, 9, 6], [i64::MAX, i64::MAX - 1, 5, 0];
    uint8_wraps u8: 0, u8::MAX => [1, 0, 9, 6], [u8::MAX, 254, 5, 0];
    uint16_wraps u16: 0, u16::MAX => [1, 0, 9, 6], [u16::MAX, 65534, 5, 0];
    uint32_wraps u32: 0, u32::MAX => [1, 0, 9, 6], [u32::MAX, u32::MAX - 1, 5, 0];
    uint64_wraps u64: 0, u64::MAX => [1, 0, 9, 6], [u64::MAX, u64::MAX - 1, 5, 0];
    fp32_adds f32: -0.5, 0.25 => [0.5, 1.25, 9.0, 6.0], [-1.5, -0.75, 5.0, 0.0];
    fp64_adds f64: -0.5, f64::MAX => [0.5, f64::MAX, 9.0, 6.0], [-1.5, f64::MAX, 5.0, 0.0];
}

#[test]
fn texts_are_decimal_numbers() {
    let model = load(DataType::Bytes);
    let a = ["12", " -3 ", "2147483647"];
    let b = ["30", "4", "1"];
    let answer = model.request().input("INPUT0", &[1, 3], &a).input("INPUT1", &[1, 3], &b).send().answer();
    assert_eq!(answer.texts("OUTPUT0"), ["42", "1", "-2147483648"]);
    assert_eq!(answer.texts("OUTPUT1"), ["-18", "-7", "2147483646"]);
}

#[test]
fn a_text_that_is_no_number_is_named_with_its_input() {
    let model = load(DataType::Bytes);
    for bad in ["two", "", "1.5", "2147483648"] {
        let request = model.request().input("INPUT0", &[1, 1], &["1"]).input("INPUT1", &[1, 1], &[bad]);
        let (code, message) = request.send().error();
        assert_eq!(code, StatusCode::INVALID_ARG);
        assert_eq!(message, format!("input 'INPUT1': '{bad}' is not a decimal number of 32 bits"));
    }
    let bytes = trireme_sdk::encode_bytes(&[[0xffu8]]);
    let request = model.request().raw("INPUT0", DataType::Bytes, &[1, 1], &[bytes]);
    let (_, message) = request.input("INPUT1", &[1, 1], &["1"]).send().error();
    assert_eq!(message, "input 'INPUT0' holds an element that is not UTF-8");
}

#[test]
fn shapes_must_be_equal_and_both_inputs_there() {
    let model = load(DataType::Int32);
    let request = model.request().input("INPUT0", &[1, 2], &[1, 2]).input("INPUT1", &[2, 1], &[1, 2]);
    let (code, message) = request.send().error();
    assert_eq!(code, StatusCode::INVALID_ARG);
    assert_eq!(message, "the inputs have different shapes: [1, 2] and [2, 1]");
    let (_, message) = model.request().input("INPUT1", &[1, 1], &[1]).send().error();
    assert_eq!(message, "add_sub needs two inputs");
}

#[test]
fn a_bad_request_does_not_spoil_its_batch() {
    let model = load(DataType::Bytes);
    let request =
        |a: &'static str| model.request().input("INPUT0", &[1, 1], &[a]).input("INPUT1", &[1, 1], &["1"]);
    let mut answers = model.send(vec![request("1"), request("x"), request("2")]).into_iter();
    let mut next = || answers.next().unwrap();
    assert_eq!(next().answer().texts("OUTPUT0"), ["2"]);
    assert_eq!(next().error().0, StatusCode::INVALID_ARG);
    assert_eq!(next().answer().texts("OUTPUT0"), ["3"]);
}

#[test]
fn only_the_wanted_output_is_made() {
    let model = load(DataType::Fp32);
    let request = model.request().input("INPUT0", &[1, 1], &[3f32]).input("INPUT1", &[1, 1], &[1f32]);
    let answer = request.output("OUTPUT1").send().answer();
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.values::<f32>("OUTPUT1"), [2.0]);
}

#[test]
fn types_that_differ_or_cannot_be_added_are_refused() {
    let [int, text] = ["TYPE_INT32", "TYPE_STRING"];
    let error = Model::load(&trireme_add_sub::trireme_backend_probe, &config([int, int, int, text])).err();
    let expected = "add_sub needs two inputs and two outputs, all of one data type";
    assert_eq!(error.unwrap().message, expected);
    let model = load(DataType::Bool);
    let request = model.request().input("INPUT0", &[1, 1], &[true]).input("INPUT1", &[1, 1], &[true]);
    let (code, message) = request.send().error();
    assert_eq!((code, message.as_str()), (StatusCode::UNSUPPORTED, "add_sub does not know BOOL"));
}
