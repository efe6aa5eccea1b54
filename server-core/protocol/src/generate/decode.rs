//! JSON object to request: a key that names an input becomes that tensor, any other a parameter.

use bytes::Bytes;

use crate::error::{ProtocolError, Result};
use crate::infer::{Door, Form, check_parameter_count, check_request, check_tensor_count};
use crate::infer::{InferRequest, InputTensor, TensorData, TensorMeta};
use crate::infer::{decode_elements, parameter_value, set_parameter};
use crate::json::{Kind, Reader};
use crate::limits::Limits;
use crate::shape::Shape;

/// Decodes the body of a generate request against the model's inputs, whose dims include the batch dimension.
///
/// Keys stand at the top or inside the object `parameters`. A value is a scalar or an array of scalars. The
/// shape comes from the input's dims: fixed ones must divide the number of elements, the innermost variable
/// one takes the rest, other variable ones are 1.
///
/// # Errors
/// Always `InvalidArg`; the text names the key or the input.
pub fn decode_generate(
    model_name: &str,
    model_version: Option<i64>,
    body: &[u8],
    inputs: &[TensorMeta],
    limits: &Limits,
) -> Result<InferRequest> {
    limits.check_body(body.len())?;
    let mut reader = Reader::new(body, limits.json_depth)?;
    let request = InferRequest::new(model_name, model_version);
    let mut mapping = Mapping { request, inputs, limits, expanded: 0, parameters: 0 };
    mapping.object(&mut reader, true)?;
    reader.end()?;
    check_request(&mapping.request, limits)?;
    Ok(mapping.request)
}

struct Mapping<'a> {
    request: InferRequest,
    inputs: &'a [TensorMeta],
    limits: &'a Limits,
    /// Bytes of tensors so far.
    expanded: usize,
    /// Parameters so far.
    parameters: usize,
}

impl Mapping<'_> {
    fn object(&mut self, reader: &mut Reader<'_>, top: bool) -> Result<()> {
        let mut first = true;
        reader.begin_object()?;
        while let Some(key) = reader.next_key(&mut first)? {
            let input = self.inputs.iter().find(|i| i.name == *key);
            match (key.as_ref(), input) {
                ("id", _) if top => {
                    self.request.id =
                        reader.string().map_err(|e| e.within("Unable to parse 'id'"))?.into_owned();
                }
                ("parameters", Some(_)) if top => {
                    return Err(ProtocolError::invalid(
                        "the key 'parameters' is also the name of an input, which generate cannot tell apart; \
                         use infer for this model",
                    ));
                }
                ("parameters", None) if top => {
                    if reader.kind()? != Kind::Object {
                        let text = "Expected JSON object for keyword: 'parameters'";
                        return Err(ProtocolError::invalid(text));
                    }
                    self.object(reader, false).map_err(|e| e.within("Converting keyword: 'parameters'"))?;
                }
                (_, Some(meta)) => self.input(reader, meta)?,
                (name, None) => {
                    self.parameters += 1;
                    check_parameter_count(self.parameters, self.limits)?;
                    let value = parameter_value(reader, name)?;
                    set_parameter(&mut self.request, name, value, Door::Http)?;
                }
            }
        }
        Ok(())
    }

    fn input(&mut self, reader: &mut Reader<'_>, meta: &TensorMeta) -> Result<()> {
        check_tensor_count("input", self.request.inputs.len() + 1, self.limits)?;
        let room = self.limits.max_body - self.expanded;
        let decoded = decode_elements(reader, meta.datatype, Form::FlatOrScalar, room)
            .map_err(|e| e.within(format_args!("input '{}'", meta.name)))?;
        self.expanded += decoded.bytes.len();
        let shape = shape_of(&meta.dims, decoded.count).ok_or_else(|| {
            ProtocolError::invalid(format!(
                "The schema can not convert input '{}' to tensor with proper shape",
                meta.name
            ))
        })?;
        self.request.inputs.push(InputTensor {
            name: meta.name.clone(),
            datatype: meta.datatype,
            shape,
            data: TensorData::Bytes(Bytes::from(decoded.bytes)),
        });
        Ok(())
    }
}

/// The shape that `count` elements take; `None` where there is none.
fn shape_of(dims: &Shape, count: usize) -> Option<Shape> {
    let fixed = dims.iter().filter(|&&d| d >= 0);
    let fixed = fixed.map(|&d| usize::try_from(d).ok()).try_fold(1usize, |n, d| n.checked_mul(d?))?;
    let mut rest = match (dims.iter().any(|&d| d < 0), fixed) {
        (false, _) => return (fixed == count).then(|| dims.clone()),
        (true, 0) => (count == 0).then_some(1)?,
        (true, _) => count.is_multiple_of(fixed).then_some(count / fixed)?,
    };
    let mut shape = dims.clone();
    for dim in shape.iter_mut().rev().filter(|d| **d < 0) {
        *dim = i64::try_from(std::mem::replace(&mut rest, 1)).ok()?;
    }
    Some(shape)
}
