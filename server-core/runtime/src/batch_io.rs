//! Tensors that speak of a whole batch: `batch_input`, which the server adds to the requests of a batch, and
//! `batch_output`, which is cut by the shapes of an input.
//!
//! Each request gets its part of a batch input, as an input of its own: the parts of a batch, one behind the other, are the
//! tensor. A backend that joins the requests' tensors needs no rule of its own for these.
//!
//! | kind | part of a request whose source has c elements and the shape [b, d1 … dr] | shape |
//! |---|---|---|
//! | element count | c | [1] |
//! | accumulated | the sum of c up to this request | [1] |
//! | accumulated, with zero | the same, the first request's behind a 0 | [1], the first [2] |
//! | largest count as shape | the first request's: as many zeros as the largest c; the others' are empty | [n] or [0] |
//! | item shape | d1 … dr for each of its b elements | [b, r] |
//! | item shape, flat | the same | [b × r] |

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use trireme_host::abi::DType;
use trireme_host::{Input, Item, Request, Shape, Status};
use trireme_model_config::CheckedConfig;
use trireme_protocol::proto::batch_input::Kind;
use trireme_protocol::{DataType, element_count};

use crate::error::ServeError;

/// The batch inputs and outputs of a model version.
#[derive(Debug, Default)]
pub(crate) struct BatchIo {
    inputs: Vec<BatchInput>,
    /// Outputs with the input whose shape each has.
    outputs: Vec<(usize, u16)>,
}

#[derive(Debug)]
struct BatchInput {
    name: String,
    index: u16,
    kind: Kind,
    source: u16,
    datatype: DataType,
}

/// The shapes that a request's answers have, by the number of the output.
pub(crate) type OutputShapes = SmallVec<[(usize, Shape); 1]>;

impl BatchIo {
    /// What the configuration asks for. The inputs come last of all that the server adds.
    pub(crate) fn new(config: &CheckedConfig) -> Result<Self, ServeError> {
        let source = |names: &[String]| -> Option<u16> {
            let name = names.first()?;
            u16::try_from(config.inputs.iter().position(|input| input.name == *name)?).ok()
        };
        let added =
            config.sequence().map_or(0, |sequence| sequence.control_input.len() + sequence.state.len());
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for input in &config.proto.batch_input {
            let Some(source) = source(&input.source_input) else { continue };
            for name in &input.target_name {
                inputs.push(BatchInput {
                    name: name.clone(),
                    index: u16::try_from(config.inputs.len() + added + inputs.len())
                        .map_err(|_| ServeError::invalid("a model with more than 65,535 inputs"))?,
                    kind: input.kind(),
                    source,
                    datatype: DataType::from_proto(input.data_type).unwrap_or(DataType::Int32),
                });
            }
        }
        for output in &config.proto.batch_output {
            let Some(source) = source(&output.source_input) else { continue };
            for name in &output.target_name {
                let at = config.outputs.iter().position(|output| output.name == *name);
                outputs.extend(at.map(|at| (at, source)));
            }
        }
        Ok(Self { inputs, outputs })
    }

    /// The names of the inputs that are added, in the order of their indices.
    pub(crate) fn input_names(config: &CheckedConfig) -> impl Iterator<Item = Box<str>> {
        config.proto.batch_input.iter().flat_map(|input| &input.target_name).map(|name| name.as_str().into())
    }

    /// Gives each request of a batch its part. A batch that cannot be counted is answered, and empty afterwards.
    pub(crate) fn attach(&self, batch: &mut Vec<Item>) {
        for input in &self.inputs {
            match input.parts(batch.iter().map(|item| &*item.request)) {
                Ok(parts) => {
                    for (item, part) in batch.iter_mut().zip(parts) {
                        item.request.inputs.push(part);
                    }
                }
                Err(status) => {
                    batch.drain(..).for_each(|item| item.responder.fail(status.clone()));
                    return;
                }
            }
        }
    }

    /// What the answers to this request are cut to.
    pub(crate) fn output_shapes(&self, request: &Request) -> OutputShapes {
        let shape = |(output, source): &(usize, u16)| Some((*output, shape_of(request, *source)?.clone()));
        self.outputs.iter().filter_map(shape).collect()
    }
}

impl BatchInput {
    fn parts<'a>(&self, batch: impl Iterator<Item = &'a Request> + Clone) -> Result<Vec<Input>, Status> {
        let counts = batch.clone().map(|request| match shape_of(request, self.source) {
            Some(shape) => element_count(shape).map_err(|error| Status::invalid(error.to_string())),
            // An optional input that is absent has no elements.
            None => Ok(0),
        });
        if self.kind == Kind::BatchMaxElementCountAsShape {
            let most = counts.clone().try_fold(0, |most, count| Ok::<_, Status>(most.max(count?)))?;
            let part = |count: usize| self.input(smallvec![count as i64], vec![0; count * 4].into());
            return Ok(batch.enumerate().map(|(at, _)| part(if at == 0 { most } else { 0 })).collect());
        }
        let (mut sum, mut parts) = (0usize, Vec::new());
        for (at, (request, count)) in batch.zip(counts).enumerate() {
            let count = count?;
            sum = sum.saturating_add(count);
            let one = |value: usize| -> (Shape, Vec<i64>) { (smallvec![1], vec![value as i64]) };
            let (shape, values) = match self.kind {
                Kind::BatchElementCount | Kind::BatchMaxElementCountAsShape => one(count),
                Kind::BatchAccumulatedElementCountWithZero if at == 0 => (smallvec![2], vec![0, sum as i64]),
                Kind::BatchAccumulatedElementCount | Kind::BatchAccumulatedElementCountWithZero => one(sum),
                Kind::BatchItemShape | Kind::BatchItemShapeFlatten => self.item_shapes(request),
            };
            let mut data = Vec::with_capacity(values.len() * 4);
            for value in values {
                data.extend(self.bytes_of(value)?);
            }
            parts.push(self.input(shape, data.into()));
        }
        Ok(parts)
    }

    /// The dimensions of the source, once for each element of the request's batch.
    fn item_shapes(&self, request: &Request) -> (Shape, Vec<i64>) {
        let shape = shape_of(request, self.source).map_or(&[][..], Shape::as_slice);
        let Some((&items, dims)) = shape.split_first() else { return (smallvec![0], Vec::new()) };
        let rank = dims.len() as i64;
        let values = dims.repeat(usize::try_from(items).unwrap_or(0));
        let flat = self.kind == Kind::BatchItemShapeFlatten;
        (if flat { smallvec![items * rank] } else { smallvec![items, rank] }, values)
    }

    fn bytes_of(&self, value: i64) -> Result<[u8; 4], Status> {
        if self.datatype == DataType::Fp32 {
            return Ok((value as f32).to_le_bytes());
        }
        i32::try_from(value).map(i32::to_le_bytes).map_err(|_| {
            Status::invalid(format!("batch_input '{}' of TYPE_INT32 cannot tell {value} elements", self.name))
        })
    }

    fn input(&self, shape: Shape, data: Bytes) -> Input {
        let buffers = Some(data).filter(|data| !data.is_empty()).into_iter().collect();
        Input { index: self.index, dtype: DType(self.datatype as u32), shape, buffers, device: None }
    }
}

fn shape_of(request: &Request, source: u16) -> Option<&Shape> {
    request.inputs.iter().find(|input| input.index == source).map(|input| &input.shape)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use expect_test::expect;
    use trireme_host::{Correlation, OutputSet};

    fn request(shape: &[i64]) -> Request {
        let (shape, buffers) = (shape.into(), SmallVec::new());
        let input = Input { index: 0, dtype: DType(8), shape, buffers, device: None };
        Request {
            id: String::new(),
            inputs: smallvec![input],
            parameters: Vec::new(),
            wanted: OutputSet::all(1),
            batch_size: 1,
            priority: 0,
            deadline_ns: 0,
            document: None,
            correlation: Correlation::None,
            trace_parent: String::new(),
            names: ["X".into()].into(),
        }
    }

    fn parts(kind: Kind, datatype: DataType, shapes: &[&[i64]]) -> Result<Vec<Input>, Status> {
        let input = BatchInput { name: "N".to_owned(), index: 1, kind, source: 0, datatype };
        let requests: Vec<Request> = shapes.iter().map(|shape| request(shape)).collect();
        input.parts(requests.iter())
    }

    #[test]
    fn the_parts_of_a_batch_are_the_tensor() {
        let mut said = String::new();
        for kind in 0..6 {
            let kind = Kind::try_from(kind).unwrap();
            said += &format!("{}:", kind.as_str_name());
            for part in parts(kind, DataType::Int32, &[&[1, 3, 2], &[2, 2, 2], &[1, 0, 2]]).unwrap() {
                let bytes = part.buffers.concat();
                let values: Vec<i32> =
                    bytes.as_chunks::<4>().0.iter().map(|n| i32::from_le_bytes(*n)).collect();
                said += &format!(" {values:?} as {:?}", part.shape);
            }
            said += "\n";
        }
        expect![[r#"
            BATCH_ELEMENT_COUNT: [6] as [1] [8] as [1] [0] as [1]
            BATCH_ACCUMULATED_ELEMENT_COUNT: [6] as [1] [14] as [1] [14] as [1]
            BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO: [0, 6] as [2] [14] as [1] [14] as [1]
            BATCH_MAX_ELEMENT_COUNT_AS_SHAPE: [0, 0, 0, 0, 0, 0, 0, 0] as [8] [] as [0] [] as [0]
            BATCH_ITEM_SHAPE: [3, 2] as [1, 2] [2, 2, 2, 2] as [2, 2] [0, 2] as [1, 2]
            BATCH_ITEM_SHAPE_FLATTEN: [3, 2] as [2] [2, 2, 2, 2] as [4] [0, 2] as [2]
        "#]]
        .assert_eq(&said);
    }

    #[test]
    fn what_a_number_cannot_tell_is_refused() {
        let shapes: [&[i64]; 2] = [&[1, 1 << 30], &[1, 1 << 30]];
        let error = parts(Kind::BatchAccumulatedElementCount, DataType::Int32, &shapes).unwrap_err();
        assert_eq!(error.message, "batch_input 'N' of TYPE_INT32 cannot tell 2147483648 elements");
        let floats = parts(Kind::BatchAccumulatedElementCount, DataType::Fp32, &shapes).unwrap();
        assert_eq!(floats[1].buffers.concat(), (2_147_483_648.0f32).to_le_bytes());
    }
}
