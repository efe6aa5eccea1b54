use std::borrow::Cow;

use serde_json::Value;
use trireme_abi::Buffer;

use crate::bytes::bytes_elements;
use crate::element::{DataType, Element};
use crate::error::{Error, Result};
use crate::request::Parameter;
use crate::response::{OwnBuffer, Response};

/// What another model answered.
pub struct Answer {
    tensors: Vec<Tensor>,
    parameters: Vec<(String, Parameter)>,
    /// Those that have no name yet.
    buffers: Vec<OwnBuffer>,
}

struct Tensor {
    name: String,
    data_type: DataType,
    shape: Vec<i64>,
    buffer: OwnBuffer,
}

impl Answer {
    pub(crate) fn new(buffers: Vec<Buffer>) -> Self {
        let buffers = buffers.into_iter().map(OwnBuffer::new).collect();
        Self { tensors: Vec::new(), parameters: Vec::new(), buffers }
    }

    /// Gives the buffers the names of the message.
    pub(crate) fn describe(&mut self, message: &Value) -> Result<()> {
        let wrong = || Error::internal("the server's answer to a call is malformed");
        let outputs = message.get("outputs").and_then(Value::as_array).ok_or_else(wrong)?;
        if outputs.len() != self.buffers.len() {
            return Err(wrong());
        }
        for (output, buffer) in outputs.iter().zip(self.buffers.drain(..)) {
            let text = |key: &str| output.get(key).and_then(Value::as_str).ok_or_else(wrong);
            let shape = output.get("shape").and_then(Value::as_array).ok_or_else(wrong)?;
            self.tensors.push(Tensor {
                name: text("name")?.to_owned(),
                data_type: DataType::from_name(text("datatype")?).ok_or_else(wrong)?,
                shape: shape.iter().map(|dim| dim.as_i64().ok_or_else(wrong)).collect::<Result<_>>()?,
                buffer,
            });
        }
        for (name, value) in message.get("parameters").and_then(Value::as_object).into_iter().flatten() {
            let value = match value {
                Value::Bool(value) => Parameter::Bool(*value),
                Value::String(value) => Parameter::String(value.clone()),
                Value::Number(value) => match value.as_i64() {
                    Some(value) => Parameter::Int(value),
                    None => Parameter::Double(value.as_f64().unwrap_or(f64::NAN)),
                },
                _ => continue,
            };
            self.parameters.push((name.clone(), value));
        }
        Ok(())
    }

    /// Whether there is nothing in it: the end of a decoupled model's answers.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty() && self.parameters.is_empty()
    }

    /// The names of the outputs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// The parameters.
    pub fn parameters(&self) -> &[(String, Parameter)] {
        &self.parameters
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| Error::internal(format!("the model that was called gave no output '{name}'")))
    }

    /// The shape of an output.
    ///
    /// # Errors
    /// There is no such output.
    pub fn shape(&self, name: &str) -> Result<&[i64]> {
        Ok(&self.tensor(name)?.shape)
    }

    /// The type of an output.
    ///
    /// # Errors
    /// There is no such output.
    pub fn data_type(&self, name: &str) -> Result<DataType> {
        Ok(self.tensor(name)?.data_type)
    }

    /// The bytes of an output.
    ///
    /// # Errors
    /// There is no such output.
    pub fn data(&self, name: &str) -> Result<&[u8]> {
        Ok(self.tensor(name)?.buffer.bytes())
    }

    /// The elements of an output; borrowed if they are aligned, otherwise copied once.
    ///
    /// # Errors
    /// There is no such output, or it is of another type.
    pub fn values<T: Element>(&self, name: &str) -> Result<Cow<'_, [T]>> {
        let tensor = self.tensor(name)?;
        if tensor.data_type != T::DATA_TYPE {
            let (is, wanted) = (tensor.data_type.name(), T::DATA_TYPE.name());
            return Err(Error::internal(format!("output '{name}' is {is}, expected is {wanted}")));
        }
        Ok(crate::element::values(tensor.buffer.bytes()))
    }

    /// The elements of a BYTES output as texts.
    ///
    /// # Errors
    /// There is no such output, it is of another type, or an element is not UTF-8.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let tensor = self.tensor(name)?;
        let wrong = |what: &str| Error::internal(format!("output '{name}' {what}"));
        if tensor.data_type != DataType::Bytes {
            return Err(wrong("is not BYTES"));
        }
        let elements = bytes_elements(tensor.buffer.bytes()).map_err(|error| wrong(&error.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| wrong("holds no UTF-8"));
        elements.into_iter().map(text).collect()
    }

    /// Moves an output into a response, under the name `name`, without a copy.
    ///
    /// # Errors
    /// There is no such output.
    pub fn move_into(&mut self, output: &str, response: Response, name: &str) -> Result<Response> {
        self.tensor(output)?;
        let at = self.tensors.iter().position(|tensor| tensor.name == output).unwrap_or_default();
        let Tensor { data_type, shape, buffer, .. } = self.tensors.swap_remove(at);
        Ok(response.push(name, data_type, &shape, buffer))
    }
}
