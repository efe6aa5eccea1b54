//! Calls of a backend to other models (`bls/1`): a message becomes a request of its own, caused by the one that is
//! being answered.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use trireme_host::{CallReader, Message, Status};
use trireme_protocol::{
    DataType, InferRequest, InferResponse, InputTensor, ParameterValue, RequestedOutput, SequenceControl,
    SequenceId, TensorData,
};

use crate::ensemble::MAX_DEPTH;
use crate::error::ServeError;
use crate::journey::{Journey, Letter};
use crate::lineage::{Ancestor, Dependent, Lineage, Outlet, Reader};
use crate::served::Served;

/// Dimensions of a tensor in a call.
const MAX_RANK: usize = 64;

/// Sends what the backend that answers `parent` asks.
pub(crate) fn call(parent: &Arc<Journey>, call: Message, reader: CallReader) -> Result<(), ServeError> {
    let above = parent.lineage();
    if above.depth >= MAX_DEPTH {
        return Err(ServeError::invalid(format!("more than {MAX_DEPTH} models would run inside each other")));
    }
    if parent.is_cancelled() {
        return Err(ServeError::new(trireme_protocol::StatusCode::Cancelled, "the request was cancelled"));
    }
    let (request, waits) = read(call)?;
    let model = parent.model.find(&request.model_name, request.model_version)?;
    let lineage = Lineage {
        deadline_ns: parent.deadline_ns(),
        depth: above.depth + 1,
        sums: None,
        trace_parent: above.trace_parent.clone(),
        ancestors: Some(Ancestor::new(parent, waits, above.ancestors.clone())),
    };
    if let Some(what) = lineage.takes_from(&model) {
        return Err(ServeError::invalid(format!(
            "the call to model '{}' could never be answered: {what} by the requests that wait for it. Give it more, or \
             call without waiting",
            model.name()
        )));
    }
    let outlet = Outlet::Reader(Arc::new(Answers { reader, _model: Arc::clone(&model) }));
    let child = model.submit(request, outlet, lineage)?;
    parent.adopt(&(child as Arc<dyn Dependent>));
    Ok(())
}

/// Hands the answers to the backend that called.
struct Answers {
    reader: CallReader,
    /// Held so that the model takes no end before its answer.
    _model: Arc<Served>,
}

impl Reader for Answers {
    fn letter(&self, letter: Letter) -> bool {
        match letter {
            Err(error) => self.reader.answer(failure(error), true),
            Ok(item) => {
                let message = item.response.map_or_else(|| answer(InferResponse::default()), answer);
                self.reader.answer(message, item.is_final);
            }
        }
        false
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }
}

fn failure(error: ServeError) -> Message {
    let Status { code, message } = error.into();
    Message {
        text: json!({ "error": { "code": code.0, "message": message } }).to_string(),
        buffers: Vec::new(),
    }
}

fn answer(response: InferResponse) -> Message {
    let parameters: Map<String, Value> =
        response.parameters.iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect();
    let describe = |output: &trireme_protocol::OutputTensor| {
        let shape = output.shape.as_slice();
        json!({ "name": output.name, "datatype": output.datatype.wire_name(), "shape": shape })
    };
    let outputs: Vec<Value> = response.outputs.iter().map(describe).collect();
    let text = json!({
        "model": response.model_name, "version": response.model_version, "parameters": parameters, "outputs": outputs,
    });
    let buffers = response.outputs.into_iter().map(|output| output.data).collect();
    Message { text: text.to_string(), buffers }
}

fn to_json(value: &ParameterValue) -> Value {
    match value {
        ParameterValue::Bool(value) => (*value).into(),
        ParameterValue::Int64(value) => (*value).into(),
        ParameterValue::Uint64(value) => (*value).into(),
        ParameterValue::Double(value) => (*value).into(),
        ParameterValue::String(value) => value.as_str().into(),
    }
}

/// The request that a message stands for, and whether its caller waits.
fn read(call: Message) -> Result<(InferRequest, bool), ServeError> {
    let wrong = |what: &str| ServeError::invalid(format!("the call of the backend is malformed: {what}"));
    let message: Value = serde_json::from_str(&call.text).map_err(|error| wrong(&error.to_string()))?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let list = |key: &str| message.get(key).and_then(Value::as_array).into_iter().flatten();
    let model = text(&message, "model").ok_or_else(|| wrong("it names no model"))?;
    let mut buffers = call.buffers.into_iter();
    let mut inputs = Vec::new();
    for input in list("inputs") {
        let name = text(input, "name").ok_or_else(|| wrong("an input has no name"))?;
        let datatype = text(input, "datatype").and_then(|name| DataType::from_wire_name(&name));
        let shape = input.get("shape").and_then(Value::as_array).filter(|shape| shape.len() <= MAX_RANK);
        let shape = shape.and_then(|shape| shape.iter().map(Value::as_i64).collect::<Option<_>>());
        let (Some(datatype), Some(shape), Some(data)) = (datatype, shape, buffers.next()) else {
            return Err(wrong(&format!("input '{name}' needs a datatype, a shape and a buffer")));
        };
        inputs.push(InputTensor { name, datatype, shape, data: TensorData::Bytes(data) });
    }
    let mut request =
        InferRequest::new(model, message.get("version").and_then(Value::as_i64).filter(|v| *v > 0));
    request.id = text(&message, "id").unwrap_or_default();
    request.timeout_us = message.get("timeout").and_then(Value::as_u64).unwrap_or(0);
    if let Some(sequence) = message.get("sequence") {
        request.sequence = in_sequence(sequence).ok_or_else(|| wrong("the sequence has no valid id"))?;
    }
    request.inputs = inputs;
    request.outputs = list("outputs")
        .filter_map(Value::as_str)
        .map(|name| RequestedOutput { name: name.to_owned(), ..RequestedOutput::default() })
        .collect();
    for (name, value) in message.get("parameters").and_then(Value::as_object).into_iter().flatten() {
        let value = match value {
            Value::Bool(value) => ParameterValue::Bool(*value),
            Value::String(value) => ParameterValue::String(value.clone()),
            Value::Number(value) => match value.as_i64() {
                Some(value) => ParameterValue::Int64(value),
                None => ParameterValue::Double(value.as_f64().unwrap_or(f64::NAN)),
            },
            _ => return Err(wrong(&format!("parameter '{name}' is no scalar"))),
        };
        request.parameters.insert(name, value);
    }
    Ok((request, message.get("waits").and_then(Value::as_bool).unwrap_or(false)))
}

/// The place of a request in its sequence; nothing if the sequence has no valid name.
fn in_sequence(sequence: &Value) -> Option<SequenceControl> {
    let id = match sequence.get("id")? {
        Value::String(name) if (1..=128).contains(&name.chars().count()) => SequenceId::Text(name.clone()),
        Value::Number(number) => SequenceId::Number(number.as_u64().filter(|number| *number != 0)?),
        _ => return None,
    };
    let flag = |key| sequence.get(key).and_then(Value::as_bool).unwrap_or(false);
    Some(SequenceControl { id: Some(id), start: flag("start"), end: flag("end") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_message_is_a_request() {
        let text = r#"{"model":"m","version":3,"id":"x","waits":true,"timeout":9,"sequence":{"id":7,"start":true},"parameters":{"k":1,"f":0.5},
            "inputs":[{"name":"A","datatype":"FP32","shape":[1,2]}],"outputs":["B"]}"#;
        let data = Bytes::from_static(&[1; 8]);
        let message = Message { text: text.to_owned(), buffers: vec![data.clone()] };
        let (request, waits) = read(message).unwrap();
        assert!(waits);
        assert_eq!(
            (request.model_name.as_str(), request.model_version, request.id.as_str()),
            ("m", Some(3), "x")
        );
        assert_eq!(request.parameters.get("k"), Some(&ParameterValue::Int64(1)));
        let TensorData::Bytes(input) = &request.inputs[0].data else { unreachable!() };
        assert_eq!(input.as_ptr(), data.as_ptr(), "not copied");
        assert_eq!(request.outputs[0].name, "B");
        assert_eq!(request.timeout_us, 9);
        let sequence = SequenceControl { id: Some(SequenceId::Number(7)), start: true, end: false };
        assert_eq!(request.sequence, sequence);
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"model":"m","inputs":[{"name":"A","datatype":"FP32","shape":[1]}]}"#,
            r#"{"model":"m","inputs":[{"name":"A"}]}"#,
            r#"{"model":"m","parameters":{"a":[]}}"#,
            r#"{"model":"m","sequence":{"start":true}}"#,
            r#"{"model":"m","sequence":{"id":0}}"#,
        ] {
            assert!(read(Message { text: text.to_owned(), buffers: Vec::new() }).is_err(), "{text}");
        }
    }
}
