//! One entry of `inputs` or of `outputs` in a JSON request.

use bytes::Bytes;

use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::infer::check::input_byte_count;
use crate::infer::decode::Seen;
use crate::infer::json_data::{self, Form};
use crate::infer::request::{RequestedOutput, SharedMemoryRef};
use crate::json::{Mark, Reader};
use crate::limits::Limits;
use crate::shape::{Shape, ShapeText, element_count};

/// An input whose binary bytes are not taken from the body yet.
pub(crate) struct ParsedInput {
    pub(crate) name: String,
    pub(crate) datatype: DataType,
    pub(crate) shape: Shape,
    pub(crate) data: Pending,
}

pub(crate) enum Pending {
    /// Decoded from JSON; its count agrees with the shape.
    Json(Bytes),
    /// This many bytes of the body's binary part.
    Binary(u64),
    SharedMemory(SharedMemoryRef),
}

/// Where the `data` of an input stands: decoded at once if the type was known, else passed over until it is.
enum Data {
    Decoded(json_data::Decoded),
    Later(Mark),
}

#[derive(Default)]
struct Fields {
    name: Option<String>,
    datatype: Option<DataType>,
    shape: Option<Shape>,
    data: Option<Data>,
    place: TensorParameters,
}

pub(crate) fn input(reader: &mut Reader<'_>, room: usize, limits: &Limits) -> Result<ParsedInput> {
    let mut fields = Fields::default();
    // The name is only known when it has been read; errors before that carry the offset alone.
    let result = input_fields(reader, &mut fields, room, limits)
        .and_then(|()| finish(reader, &mut fields, room))
        .map_err(|e| match &fields.name {
            Some(name) => e.within(format_args!("input '{name}'")),
            None => e.within("input"),
        });
    let (datatype, shape, data) = result?;
    Ok(ParsedInput { name: fields.name.unwrap_or_default(), datatype, shape, data })
}

fn input_fields(reader: &mut Reader<'_>, fields: &mut Fields, room: usize, limits: &Limits) -> Result<()> {
    let mut first = true;
    let mut seen = Seen::default();
    reader.begin_object()?;
    while let Some(key) = reader.next_key(&mut first)? {
        match key.as_ref() {
            "name" => {
                seen.once("name")?;
                fields.name =
                    Some(reader.string().map_err(|e| e.within("Unable to parse 'name'"))?.into_owned());
            }
            "datatype" => {
                seen.once("datatype")?;
                let text = reader.string().map_err(|e| e.within("Unable to parse 'datatype'"))?;
                fields.datatype = Some(DataType::from_wire_name(&text).ok_or_else(|| unknown_type(&text))?);
            }
            "shape" => {
                seen.once("shape")?;
                fields.shape = Some(shape(reader, limits).map_err(|e| e.within("Unable to parse 'shape'"))?);
            }
            "parameters" => {
                seen.once("parameters")?;
                fields.place = tensor_parameters(reader)?;
            }
            "data" => {
                seen.once("data")?;
                fields.data = Some(match fields.datatype {
                    Some(t) => Data::Decoded(
                        json_data::decode(reader, t, Form::Nested, room)
                            .map_err(|e| e.within("Unable to parse 'data'"))?,
                    ),
                    None => Data::Later(reader.skip()?),
                });
            }
            _ => drop(reader.skip()?),
        }
    }
    Ok(())
}

fn finish(reader: &Reader<'_>, fields: &mut Fields, room: usize) -> Result<(DataType, Shape, Pending)> {
    if fields.name.is_none() {
        return Err(missing("name"));
    }
    let datatype = fields.datatype.ok_or_else(|| missing("datatype"))?;
    let shape = fields.shape.take().ok_or_else(|| missing("shape"))?;
    // Overflow is told before any count is compared with it.
    let expected = element_count(&shape)?;
    input_byte_count(datatype, &shape)?;
    let part = fields.place.shared_memory()?;
    let pending = match (fields.data.take(), fields.place.binary_data_size, part) {
        (Some(data), None, None) => {
            let decoded = match data {
                Data::Decoded(decoded) => decoded,
                Data::Later(mark) => json_data::decode(&mut reader.at(mark), datatype, Form::Nested, room)
                    .map_err(|e| e.within("Unable to parse 'data'"))?,
            };
            if decoded.count != expected {
                return Err(ProtocolError::invalid(format!(
                    "shape {} needs {expected} elements in 'data', got {}",
                    ShapeText(&shape),
                    decoded.count
                )));
            }
            Pending::Json(Bytes::from(decoded.bytes))
        }
        (None, Some(size), None) => Pending::Binary(size),
        (None, None, Some(part)) => Pending::SharedMemory(part),
        (None, None, None) => {
            return Err(ProtocolError::invalid(
                "has no data: give 'data', or the parameter 'binary_data_size' or 'shared_memory_region'",
            ));
        }
        _ => {
            return Err(ProtocolError::invalid(
                "has more than one of 'data', 'binary_data_size' and 'shared_memory_region'",
            ));
        }
    };
    Ok((datatype, shape, pending))
}

pub(crate) fn output(reader: &mut Reader<'_>) -> Result<RequestedOutput> {
    let mut first = true;
    let mut seen = Seen::default();
    let mut output = RequestedOutput::default();
    let mut place = TensorParameters::default();
    reader.begin_object().map_err(|e| e.within("Unable to parse 'outputs'"))?;
    while let Some(key) = reader.next_key(&mut first)? {
        match key.as_ref() {
            "name" => {
                seen.once("name")?;
                output.name = reader
                    .string()
                    .map_err(|e| e.within("requested output: Unable to parse 'name'"))?
                    .into_owned();
            }
            "parameters" => {
                seen.once("parameters")?;
                place = tensor_parameters(reader).map_err(|e| e.within("requested output"))?;
            }
            _ => drop(reader.skip()?),
        }
    }
    if !seen.has("name") {
        return Err(missing("name").within("requested output"));
    }
    resolve_output(&mut output, &mut place)
        .map_err(|e| e.within(format_args!("requested output '{}'", output.name)))?;
    Ok(output)
}

/// Puts the parameters of a requested output where they belong; the shared-memory triple excludes the others.
pub(crate) fn resolve_output(output: &mut RequestedOutput, place: &mut TensorParameters) -> Result<()> {
    output.shared_memory = place.shared_memory()?;
    output.classification = place.classification;
    output.binary = place.binary_data;
    if output.shared_memory.is_some() && (output.classification.is_some() || output.binary == Some(true)) {
        return Err(ProtocolError::invalid(
            "'shared_memory_region' cannot be combined with 'binary_data' or 'classification'",
        ));
    }
    Ok(())
}

/// The parameters of an input or a requested output that have a meaning here.
#[derive(Default, Debug)]
pub(crate) struct TensorParameters {
    pub(crate) binary_data_size: Option<u64>,
    pub(crate) binary_data: Option<bool>,
    pub(crate) classification: Option<u32>,
    pub(crate) region: Option<String>,
    pub(crate) byte_size: Option<u64>,
    pub(crate) offset: Option<u64>,
}

impl TensorParameters {
    pub(crate) fn shared_memory(&mut self) -> Result<Option<SharedMemoryRef>> {
        let Some(region) = self.region.take() else {
            if self.byte_size.is_some() || self.offset.is_some() {
                return Err(ProtocolError::invalid(
                    "has a shared-memory size or offset but no 'shared_memory_region'",
                ));
            }
            return Ok(None);
        };
        let byte_size = self.byte_size.ok_or_else(|| {
            ProtocolError::invalid("'shared_memory_region' needs the parameter 'shared_memory_byte_size'")
        })?;
        let offset = self.offset.unwrap_or(0);
        if offset.checked_add(byte_size).is_none() {
            return Err(ProtocolError::invalid(
                "Invalid offset for shared memory region: it and the size add up past 64 bits",
            ));
        }
        Ok(Some(SharedMemoryRef { region, offset, byte_size }))
    }

    pub(crate) fn set_classification(&mut self, classes: u64) -> Result<()> {
        let classes = u32::try_from(classes).ok().filter(|&k| k > 0);
        self.classification = Some(classes.ok_or_else(|| {
            ProtocolError::invalid("parameter 'classification' must be between 1 and 4294967295")
        })?);
        Ok(())
    }
}

fn tensor_parameters(reader: &mut Reader<'_>) -> Result<TensorParameters> {
    let mut found = TensorParameters::default();
    let mut first = true;
    reader.begin_object().map_err(|e| e.within("Unable to parse 'parameters'"))?;
    while let Some(key) = reader.next_key(&mut first)? {
        let place = |e: ProtocolError| e.within(format_args!("parameter '{key}'"));
        match key.as_ref() {
            "binary_data_size" => found.binary_data_size = Some(reader.unsigned().map_err(place)?),
            "binary_data" => found.binary_data = Some(reader.bool().map_err(place)?),
            "classification" => found.set_classification(reader.unsigned().map_err(place)?)?,
            "shared_memory_region" => found.region = Some(reader.string().map_err(place)?.into_owned()),
            "shared_memory_byte_size" => found.byte_size = Some(reader.unsigned().map_err(place)?),
            "shared_memory_offset" => found.offset = Some(reader.unsigned().map_err(place)?),
            _ => drop(reader.skip()?),
        }
    }
    Ok(found)
}

fn shape(reader: &mut Reader<'_>, limits: &Limits) -> Result<Shape> {
    let mut shape = Shape::new();
    let mut first = true;
    reader.begin_array()?;
    while reader.next_element(&mut first)? {
        if shape.len() == limits.max_rank {
            return Err(reader.mismatch(format_args!("more than {} dimensions", limits.max_rank)));
        }
        let dim = reader.unsigned()?;
        shape.push(
            i64::try_from(dim).map_err(|_| reader.mismatch(format_args!("dimension {dim} is too large")))?,
        );
    }
    Ok(shape)
}

pub(crate) fn unknown_type(text: &str) -> ProtocolError {
    let known: Vec<_> = DataType::ALL.iter().map(|t| t.wire_name()).collect();
    ProtocolError::invalid(format!("unknown datatype '{text}', known are {}", known.join(", ")))
}

fn missing(field: &str) -> ProtocolError {
    ProtocolError::invalid(format!("has no '{field}'"))
}
