//! Requests of the process to other models (BLS).

use std::sync::Arc;

use trireme_sdk::{Answer, Call, Caller, Error, Parameter, Result};

use crate::incoming::{number_of, parameters, tensor_data};
use crate::outgoing::{Outgoing, Put, Sender};
use crate::slabs::Theirs;
use crate::wire::{Cursor, Malformed, TensorHead, to};

const WAITS: u8 = 1;
const TEXT_CORRELATION: u8 = 2;
const FINAL: u8 = 1;
const FAILURE: u8 = 2;
const SEQUENCE_START: u32 = 1;
const SEQUENCE_END: u32 = 2;

/// Makes the call that a frame describes. Its answers go to the process as they come.
pub(crate) fn make(
    body: &[u8],
    sender: &Arc<Sender>,
    caller: Option<Caller>,
    slabs: &mut Theirs,
) -> std::result::Result<(), Malformed> {
    let (mut cursor, data) = Cursor::described(body)?;
    let cursor = &mut cursor;
    let (number, flags, _, inputs) = (cursor.u64()?, cursor.u8()?, cursor.u8()?, cursor.u16()?);
    let (version, correlation, timeout) = (cursor.i64()?, cursor.u64()?, cursor.u64()?);
    let sequence_flags = cursor.u32()?;
    let mut length = || cursor.u32().map(|length| length as usize);
    let (model, id, correlation_text, json, outputs) =
        (length()?, length()?, length()?, length()?, length()?);
    let mut call = Call::new(cursor.text(model)?);
    if version > 0 {
        call = call.version(version);
    }
    let id = cursor.text(id)?;
    if !id.is_empty() {
        call = call.id(id);
    }
    let correlation_text = cursor.text(correlation_text)?;
    let (start, end) = (sequence_flags & SEQUENCE_START != 0, sequence_flags & SEQUENCE_END != 0);
    if flags & TEXT_CORRELATION != 0 && !correlation_text.is_empty() {
        call = call.named_sequence(correlation_text, start, end);
    } else if correlation != 0 {
        call = call.sequence(correlation, start, end);
    }
    if timeout != 0 {
        call = call.timeout_us(timeout);
    }
    if flags & WAITS != 0 {
        call = call.waits();
    }
    for (name, value) in parameters(cursor.text(json)?)? {
        call = call.parameter(&name, value);
    }
    for _ in 0..outputs {
        let length = cursor.u32()? as usize;
        call = call.output(cursor.text(length)?);
    }
    for _ in 0..inputs {
        let head = TensorHead::read(cursor)?;
        let bytes = tensor_data(slabs, &head, data)?;
        call = call.raw(head.name, head.data_type, &head.shape, bytes).map_err(|_| Malformed)?;
    }
    let to = Arc::clone(sender);
    let answer = move |result: Result<Answer>, last: bool| to.send(answer(&to, number, &result, last));
    match caller {
        Some(caller) => caller.call_each(call, answer),
        None => answer(
            Err(Error::unsupported("other models can be asked while a request is being answered only")),
            true,
        ),
    }
    Ok(())
}

fn answer(sender: &Arc<Sender>, number: u64, result: &Result<Answer>, last: bool) -> Vec<u8> {
    let described = match result {
        Ok(answer) => good(sender, number, answer, last),
        Err(error) => Err(error.clone()),
    };
    match described {
        Ok(frame) => frame,
        Err(error) => {
            let mut frame = Outgoing::new(sender);
            head(
                &mut frame.meta,
                (number, FINAL | FAILURE, number_of(error.code)),
                0,
                error.message.len(),
                0,
            );
            frame.meta.extend_from_slice(error.message.as_bytes());
            frame.frame(to::ANSWER).unwrap_or_default()
        }
    }
}

fn head(meta: &mut Vec<u8>, (number, flags, code): (u64, u8, u8), tensors: usize, text: usize, json: usize) {
    meta.put(number.to_le_bytes());
    meta.put([flags, code]);
    meta.put((tensors as u16).to_le_bytes());
    meta.put((text as u32).to_le_bytes());
    meta.put((json as u32).to_le_bytes());
}

fn good(sender: &Arc<Sender>, number: u64, answer: &Answer, last: bool) -> Result<Vec<u8>> {
    let mut frame = Outgoing::new(sender);
    let json = match answer.parameters() {
        [] => String::new(),
        given => serde_json::Value::Object(
            given.iter().map(|(name, value)| (name.clone(), as_json(value))).collect(),
        )
        .to_string(),
    };
    let flags = if last { FINAL } else { 0 };
    head(&mut frame.meta, (number, flags, 0), answer.names().count(), 0, json.len());
    frame.meta.extend_from_slice(json.as_bytes());
    for name in answer.names() {
        frame.tensor(name, answer.data_type(name)?, answer.shape(name)?, &[answer.data(name)?])?;
    }
    frame.frame(to::ANSWER)
}

pub(crate) fn as_json(value: &Parameter) -> serde_json::Value {
    match value {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int(value) => (*value).into(),
        Parameter::Double(value) => (*value).into(),
        Parameter::String(value) => value.as_str().into(),
    }
}
