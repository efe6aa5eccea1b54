//! What the process says, frame by frame.

use std::sync::Arc;

use serde_json::Value;
use trireme_sdk::{Error, ErrorCode, Host, Parameter, Response, Result as SdkResult};

use crate::calls;
use crate::gpu;
use crate::metrics::{Metrics, Numbered};
use crate::models;
use crate::outgoing::Sender;
use crate::requests::{Part, Requests};
use crate::slabs::{DROPPED, Theirs};
use crate::wire::{self, Cursor, Malformed, TensorHead, from, to};

const FINAL: u8 = 1;
const FAILURE: u8 = 2;

/// Takes what one process says.
pub(crate) struct Incoming {
    pub(crate) host: Host,
    pub(crate) label: String,
    /// The model, on whose behalf others are loaded.
    pub(crate) model: String,
    pub(crate) sender: Arc<Sender>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) slabs: Theirs,
    pub(crate) metrics: (Arc<Metrics>, Numbered),
}

/// What a frame means for whoever reads them.
pub(crate) enum Event {
    /// It is dealt with.
    Nothing,
    /// The model is initialized.
    Ready,
    /// The model cannot be loaded.
    Failed(String),
    /// The completed configuration.
    Config(String),
    /// `execute` of this batch has returned.
    Done(u64),
    /// The process ends as it was asked to.
    Bye,
}

impl Incoming {
    /// Deals with a frame.
    ///
    /// # Errors
    /// It is not as it must be; the process is to be ended.
    pub(crate) fn take(&mut self, kind: u8, body: &[u8]) -> Result<Event, Malformed> {
        let event = self.deal_with(kind, body)?;
        self.slabs.take_read().into_iter().for_each(|slab| self.sender.release(slab));
        Ok(event)
    }

    fn deal_with(&mut self, kind: u8, body: &[u8]) -> Result<Event, Malformed> {
        let mut cursor = Cursor::new(body);
        match kind {
            from::DONE => {
                let (mut cursor, data) = Cursor::described(body)?;
                let (batch, count) = (cursor.u64()?, cursor.u32()?);
                for _ in 0..count {
                    self.response(&mut cursor, data)?;
                }
                return Ok(Event::Done(batch));
            }
            from::RESPONSE => {
                let (mut cursor, data) = Cursor::described(body)?;
                self.response(&mut cursor, data)?;
            }
            from::CALL => {
                calls::make(body, &self.sender, self.requests.caller(), &mut self.slabs)?;
            }
            from::ASK => self.ask(&mut cursor)?,
            from::LOAD => self.load(body)?,
            from::LOG => self.log(&mut cursor)?,
            from::METRIC => self.measure(&mut cursor)?,
            from::RETURN => {
                while let Ok(number) = cursor.u32() {
                    if number & DROPPED == 0 {
                        self.sender.returned(number);
                    } else {
                        self.slabs.drop_slab(number & !DROPPED);
                    }
                }
            }
            from::READY => return Ok(Event::Ready),
            from::BYE => return Ok(Event::Bye),
            from::FAILED => return Ok(Event::Failed(text(cursor.rest()))),
            from::CONFIG => return Ok(Event::Config(text(cursor.rest()))),
            _ => return Err(Malformed),
        }
        Ok(Event::Nothing)
    }

    fn response(&mut self, cursor: &mut Cursor<'_>, data: &[u8]) -> Result<(), Malformed> {
        let (number, flags, code, tensors) = (cursor.u64()?, cursor.u8()?, cursor.u8()?, cursor.u16()?);
        let (error_length, parameters) = (cursor.u32()? as usize, cursor.u32()? as usize);
        let error_text = text(cursor.bytes(error_length)?);
        let parameters = cursor.text(parameters)?;
        let is_last = flags & FINAL != 0;
        let part = if flags & FAILURE != 0 {
            Part::Failure(Error { code: code_of(code), message: error_text })
        } else if tensors == 0 && parameters.is_empty() && is_last {
            Part::End
        } else {
            let mut response = Ok(with_parameters(Response::new(), parameters)?);
            for _ in 0..tensors {
                let head = TensorHead::read(cursor)?;
                response = match response {
                    Ok(so_far) if gpu::is_gpu(head.slab) => {
                        gpu::output(so_far, (&self.host, &self.sender), &head, data)?
                    }
                    Ok(so_far) => {
                        let bytes = tensor_data(&mut self.slabs, &head, data)?;
                        let with = so_far.raw(head.name, head.data_type, &head.shape, bytes);
                        Ok(with.map_err(|_| Malformed)?)
                    }
                    Err(error) => {
                        // Nobody will read it.
                        if gpu::is_gpu(head.slab) {
                            self.sender.release_now(head.slab);
                        }
                        Err(error)
                    }
                };
            }
            match response {
                Ok(response) => Part::Response(response, is_last),
                Err(error) => Part::Failure(error),
            }
        };
        self.requests.deliver(&self.sender, number, part);
        Ok(())
    }

    fn ask(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let (question, what) = (cursor.u32()?, cursor.u8()?);
        let (well, answer) = match what {
            1 => (true, vec![u8::from(self.requests.is_cancelled(cursor.u64()?))]),
            2 => match self.metrics.1.number(&self.metrics.0, cursor.rest())? {
                Ok(number) => (true, number.to_le_bytes().to_vec()),
                Err(error) => (false, error.message.into_bytes()),
            },
            3 => match self.metrics.1.value(cursor.u32()?) {
                Some(value) => (true, value.to_le_bytes().to_vec()),
                None => (false, b"there is no such counter or gauge".to_vec()),
            },
            4 => match models::is_ready(&self.host, &self.model, cursor)? {
                Ok(ready) => (true, vec![u8::from(ready)]),
                Err(error) => (false, error.message.into_bytes()),
            },
            5 => {
                let (dependents, model) = models::unload(cursor)?;
                let reply = self.later(question);
                match self.host.models(&self.model) {
                    Ok(models) => models.unload(model, dependents, reply),
                    Err(error) => reply(Err(error)),
                }
                return Ok(());
            }
            _ => return Err(Malformed),
        };
        reply(&self.sender, question, well, &answer);
        Ok(())
    }

    fn load(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let (question, load) = models::load(body, &mut self.slabs)?;
        let reply = self.later(question);
        match self.host.models(&self.model) {
            Ok(models) => models.load(load, reply),
            Err(error) => reply(Err(error)),
        }
        Ok(())
    }

    /// Answers a question when the result is there: whoever reads from the process does not wait for it.
    fn later(&self, question: u32) -> impl FnOnce(SdkResult<()>) + Send + use<> {
        let sender = Arc::clone(&self.sender);
        move |result| match result {
            Ok(()) => reply(&sender, question, true, &[]),
            Err(error) => reply(&sender, question, false, error.message.as_bytes()),
        }
    }

    fn measure(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        self.metrics.1.measure(cursor.u32()?, cursor.u8()?, cursor.f64()?)
    }

    fn log(&self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let level = cursor.u8()?;
        let message = text(cursor.rest());
        let line = format_args!("{}: {message}", self.label);
        match level {
            1 => self.host.error(line),
            2 => self.host.warn(line),
            3 => self.host.info(line),
            4 => self.host.verbose(line),
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

fn reply(sender: &Arc<Sender>, question: u32, well: bool, answer: &[u8]) {
    let mut body = question.to_le_bytes().to_vec();
    body.push(u8::from(well));
    body.extend_from_slice(answer);
    sender.send(wire::plain(to::REPLY, &body));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of a tensor: from the frame, or from shared memory.
pub(crate) fn tensor_data(
    slabs: &mut Theirs,
    head: &TensorHead<'_>,
    data: &[u8],
) -> Result<Vec<u8>, Malformed> {
    if head.slab == 0 {
        let begin = usize::try_from(head.offset).map_err(|_| Malformed)?;
        let length = usize::try_from(head.length).map_err(|_| Malformed)?;
        let bytes = data.get(begin..).and_then(|rest| rest.get(..length)).ok_or(Malformed)?;
        // Copied: the frame goes.
        return Ok(bytes.to_vec());
    }
    // Copied: the process uses the memory again.
    slabs.read(head.slab, head.offset, head.length).map_err(|_| Malformed)
}

/// Adds parameters, given as a JSON object of scalars.
pub(crate) fn parameters(json: &str) -> Result<Vec<(String, Parameter)>, Malformed> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let fields: serde_json::Map<String, Value> = serde_json::from_str(json).map_err(|_| Malformed)?;
    let one = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(value) => Parameter::Bool(value),
            Value::String(value) => Parameter::String(value),
            Value::Number(value) => match value.as_i64() {
                Some(value) => Parameter::Int(value),
                None => Parameter::Double(value.as_f64().ok_or(Malformed)?),
            },
            _ => return Err(Malformed),
        };
        Ok((name, value))
    };
    fields.into_iter().map(one).collect()
}

fn with_parameters(response: Response, json: &str) -> Result<Response, Malformed> {
    let given = parameters(json)?;
    Ok(given.into_iter().fold(response, |response, (name, value)| response.parameter(&name, value)))
}

/// The codes of `TritonError`, in its order.
const CODES: [ErrorCode; 8] = [
    ErrorCode::Unknown,
    ErrorCode::Internal,
    ErrorCode::NotFound,
    ErrorCode::InvalidArg,
    ErrorCode::Unavailable,
    ErrorCode::Unsupported,
    ErrorCode::AlreadyExists,
    ErrorCode::Cancelled,
];

fn code_of(number: u8) -> ErrorCode {
    CODES.get(usize::from(number)).copied().unwrap_or(ErrorCode::Internal)
}

pub(crate) fn number_of(code: ErrorCode) -> u8 {
    CODES.iter().position(|one| *one == code).map_or(1, |at| at as u8)
}
