//! Request parameters with a fixed meaning, and which names a caller may not use.

use crate::error::{ProtocolError, Result};
use crate::infer::parameters::ParameterValue;
use crate::infer::request::{InferRequest, SequenceId};

/// Names that begin so are the server's own.
const RESERVED_PREFIX: &str = "triton_";
/// The one reserved name that a caller may set.
const ENABLE_EMPTY_FINAL: &str = "triton_enable_empty_final_response";
/// The most characters of a sequence's text name.
const MAX_SEQUENCE_TEXT: usize = 128;

/// Which of a parameter's types a door takes: gRPC is strict, JSON has no signedness of its own.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Door {
    Http,
    Grpc,
}

/// Whether a forwarded header may not have this name, because it means something to the server.
#[must_use]
pub fn is_reserved_parameter(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
        || matches!(
            name,
            "sequence_id"
                | "sequence_start"
                | "sequence_end"
                | "priority"
                | "timeout"
                | "binary_data_output"
                | "headers"
        )
}

/// Puts a parameter where it belongs: into its typed field, or on the list for the model.
pub(crate) fn set_parameter(
    request: &mut InferRequest,
    key: &str,
    value: ParameterValue,
    door: Door,
) -> Result<()> {
    let wrong = |want: &str| {
        ProtocolError::invalid(format!("parameter '{key}' must be {want}, got {}", value.type_name()))
    };
    let flag = || value.as_bool().ok_or_else(|| wrong("a bool"));
    match key {
        "sequence_id" => request.sequence.id = sequence_id(&value, door)?,
        "sequence_start" => request.sequence.start = flag()?,
        "sequence_end" => request.sequence.end = flag()?,
        "priority" => {
            request.priority = value.as_u64().ok_or_else(|| wrong("an unsigned integer"))?;
        }
        "timeout" => {
            let strict = door == Door::Grpc && !matches!(value, ParameterValue::Int64(_));
            let timeout = if strict { None } else { value.as_u64() };
            request.timeout_us = timeout.ok_or_else(|| match door {
                Door::Http => wrong("an unsigned integer of microseconds"),
                Door::Grpc => wrong("a non-negative int64 of microseconds"),
            })?;
        }
        "binary_data_output" => request.binary_data_output = flag()?,
        ENABLE_EMPTY_FINAL => request.enable_empty_final_response = flag()?,
        _ if key.starts_with(RESERVED_PREFIX) => {
            return Err(ProtocolError::invalid(format!(
                "parameter keys starting with '{RESERVED_PREFIX}' are reserved for the server, but got '{key}'"
            )));
        }
        _ => {
            if request.parameters.insert(key, value).is_some() {
                return Err(ProtocolError::invalid(format!("parameter '{key}' is given twice")));
            }
        }
    }
    Ok(())
}

/// `None` for 0 and the empty text, which mean that the request belongs to no sequence.
fn sequence_id(value: &ParameterValue, door: Door) -> Result<Option<SequenceId>> {
    let number = match (value, door) {
        (ParameterValue::String(text), _) => {
            let length = text.chars().count();
            if length > MAX_SEQUENCE_TEXT {
                return Err(ProtocolError::invalid(format!(
                    "parameter 'sequence_id' has {length} characters, at most {MAX_SEQUENCE_TEXT} are allowed"
                )));
            }
            return Ok((!text.is_empty()).then(|| SequenceId::Text(text.clone())));
        }
        // gRPC has no unsigned field for it: ids above i64::MAX travel as the same 64 bits.
        (ParameterValue::Int64(id), Door::Grpc) => Some(*id as u64),
        (_, Door::Grpc) => None,
        (_, Door::Http) => value.as_u64(),
    };
    let number = number.ok_or_else(|| {
        let want = match door {
            Door::Http => "an unsigned integer or a string",
            Door::Grpc => "an int64 or a string",
        };
        let got = value.type_name();
        ProtocolError::invalid(format!("parameter 'sequence_id' must be {want}, got {got}"))
    })?;
    Ok((number != 0).then_some(SequenceId::Number(number)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Door, is_reserved_parameter, set_parameter};
    use crate::infer::{InferRequest, ParameterValue as V, SequenceId};

    fn set(key: &str, value: V, door: Door) -> Result<InferRequest, String> {
        let mut request = InferRequest::new("m", None);
        set_parameter(&mut request, key, value, door).map(|()| request).map_err(|e| e.message)
    }

    #[test]
    fn known_names_land_in_their_fields() {
        let http = |k, v| set(k, v, Door::Http).unwrap();
        assert_eq!(http("sequence_id", V::Int64(7)).sequence.id, Some(SequenceId::Number(7)));
        assert_eq!(
            http("sequence_id", V::String("s".into())).sequence.id,
            Some(SequenceId::Text("s".into()))
        );
        assert_eq!(http("sequence_id", V::Int64(0)).sequence.id, None);
        assert_eq!(http("priority", V::Uint64(u64::MAX)).priority, u64::MAX);
        assert_eq!(http("timeout", V::Int64(5)).timeout_us, 5);
        assert!(http("sequence_start", V::Bool(true)).sequence.start);
        assert!(http("sequence_end", V::Bool(true)).sequence.end);
        assert!(http("binary_data_output", V::Bool(true)).binary_data_output);
        assert!(http("triton_enable_empty_final_response", V::Bool(true)).enable_empty_final_response);
        assert_eq!(http("mine", V::Double(0.5)).parameters.get("mine"), Some(&V::Double(0.5)));
    }

    #[test]
    fn wrong_types_and_reserved_names_are_refused() {
        let http = |k, v| set(k, v, Door::Http).unwrap_err();
        let grpc = |k, v| set(k, v, Door::Grpc).unwrap_err();
        assert_eq!(
            http("sequence_id", V::Int64(-1)),
            "parameter 'sequence_id' must be an unsigned integer or a string, got int64"
        );
        assert_eq!(
            http("priority", V::Bool(true)),
            "parameter 'priority' must be an unsigned integer, got bool"
        );
        assert_eq!(
            http("sequence_start", V::Int64(1)),
            "parameter 'sequence_start' must be a bool, got int64"
        );
        assert_eq!(
            http("triton_x", V::Int64(1)),
            "parameter keys starting with 'triton_' are reserved for the server, but got 'triton_x'"
        );
        assert_eq!(
            http("sequence_id", V::String("x".repeat(129))),
            "parameter 'sequence_id' has 129 characters, at most 128 are allowed"
        );
        assert_eq!(
            grpc("timeout", V::Uint64(1)),
            "parameter 'timeout' must be a non-negative int64 of microseconds, got uint64"
        );
        assert_eq!(
            grpc("sequence_id", V::Uint64(1)),
            "parameter 'sequence_id' must be an int64 or a string, got uint64"
        );
        assert_eq!(
            grpc("priority", V::Int64(-1)),
            "parameter 'priority' must be an unsigned integer, got int64"
        );
        assert!(set("priority", V::Uint64(1), Door::Grpc).is_ok());
        let big = set("sequence_id", V::Int64(-1), Door::Grpc).unwrap();
        assert_eq!(big.sequence.id, Some(SequenceId::Number(u64::MAX)));
    }

    #[test]
    fn names_that_headers_may_not_have() {
        for name in ["timeout", "headers", "triton_enable_empty_final_response", "triton_x"] {
            assert!(is_reserved_parameter(name), "{name}");
        }
        assert!(!is_reserved_parameter("x-tenant"));
    }
}
