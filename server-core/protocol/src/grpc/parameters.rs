//! `InferParameter` and [`ParameterValue`], which have the same five kinds.

use crate::infer::ParameterValue;
use crate::proto::InferParameter;
use crate::proto::infer_parameter::ParameterChoice;

/// The value of a message; `None` where the caller set none of its fields.
#[must_use]
pub fn from_proto(parameter: InferParameter) -> Option<ParameterValue> {
    Some(match parameter.parameter_choice? {
        ParameterChoice::BoolParam(v) => ParameterValue::Bool(v),
        ParameterChoice::Int64Param(v) => ParameterValue::Int64(v),
        ParameterChoice::Uint64Param(v) => ParameterValue::Uint64(v),
        ParameterChoice::DoubleParam(v) => ParameterValue::Double(v),
        ParameterChoice::StringParam(v) => ParameterValue::String(v),
    })
}

/// The message of a value.
#[must_use]
pub fn to_proto(value: ParameterValue) -> InferParameter {
    let choice = match value {
        ParameterValue::Bool(v) => ParameterChoice::BoolParam(v),
        ParameterValue::Int64(v) => ParameterChoice::Int64Param(v),
        ParameterValue::Uint64(v) => ParameterChoice::Uint64Param(v),
        ParameterValue::Double(v) => ParameterChoice::DoubleParam(v),
        ParameterValue::String(v) => ParameterChoice::StringParam(v),
    };
    InferParameter { parameter_choice: Some(choice) }
}
