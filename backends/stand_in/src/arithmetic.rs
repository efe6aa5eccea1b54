//! Sums and differences of any types into any types, as the suites' models have them.

use half::f16;
use trireme_sdk::{DataType, Error, Input, Request, Response, Result, TensorConfig};

/// Elements of a tensor. Integers wrap; what a float of 16 or 32 bits sums up to is exact in 64.
enum Values {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

/// The first output is the sum and the second the difference, or the other way round.
pub(crate) fn add_sub(request: &Request, outputs: &[TensorConfig], swap: bool) -> Result<Response> {
    let mut inputs = request.inputs();
    let (Some(a), Some(b)) = (inputs.next(), inputs.next()) else {
        return Err(Error::invalid("two inputs are needed"));
    };
    if a.shape() != b.shape() {
        return Err(Error::invalid(format!("the shapes {:?} and {:?} differ", a.shape(), b.shape())));
    }
    let (x, y) = (read(&a)?, read(&b)?);
    let mut response = Response::new();
    for (number, output) in outputs.iter().take(2).enumerate() {
        if !request.wants_output(number) {
            continue;
        }
        let values = combine(&x, &y, (number == 1) != swap)?;
        response = if output.data_type == DataType::Bytes {
            let texts = values.texts();
            response.bytes(&output.name, a.shape(), &texts)?
        } else {
            response.raw(&output.name, output.data_type, a.shape(), values.write(output.data_type)?)?
        };
    }
    Ok(response)
}

fn combine(x: &Values, y: &Values, subtract: bool) -> Result<Values> {
    match (x, y) {
        (Values::Integers(x), Values::Integers(y)) => {
            let one = |(x, y): (&i64, &i64)| if subtract { x.wrapping_sub(*y) } else { x.wrapping_add(*y) };
            Ok(Values::Integers(x.iter().zip(y).map(one).collect()))
        }
        (Values::Floats(x), Values::Floats(y)) => {
            let one = |(x, y): (&f64, &f64)| if subtract { x - y } else { x + y };
            Ok(Values::Floats(x.iter().zip(y).map(one).collect()))
        }
        _ => Err(Error::invalid("the inputs must be of one type")),
    }
}

fn read(input: &Input<'_>) -> Result<Values> {
    macro_rules! as_integers {
        ($ty:ty) => {
            Values::Integers(input.values::<$ty>()?.iter().map(|value| *value as i64).collect())
        };
    }
    Ok(match input.data_type() {
        DataType::Int8 => as_integers!(i8),
        DataType::Int16 => as_integers!(i16),
        DataType::Int32 => as_integers!(i32),
        DataType::Int64 => as_integers!(i64),
        DataType::Uint8 => as_integers!(u8),
        DataType::Uint16 => as_integers!(u16),
        DataType::Uint32 => as_integers!(u32),
        DataType::Uint64 => as_integers!(u64),
        DataType::Fp16 => {
            let data = input.data()?;
            let halves = data.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f64());
            Values::Floats(halves.collect())
        }
        DataType::Fp32 => {
            Values::Floats(input.values::<f32>()?.iter().map(|value| f64::from(*value)).collect())
        }
        DataType::Fp64 => Values::Floats(input.values::<f64>()?.to_vec()),
        DataType::Bytes => {
            let number = |text: String| {
                text.trim().parse::<i64>().map_err(|_| {
                    Error::invalid(format!("input '{}': '{text}' is not a decimal number", input.name()))
                })
            };
            Values::Integers(input.texts()?.into_iter().map(number).collect::<Result<_>>()?)
        }
        other => return Err(Error::unsupported(format!("there is no arithmetic of {}", other.name()))),
    })
}

impl Values {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::Integers(values) => values.iter().map(i64::to_string).collect(),
            Self::Floats(values) => values.iter().map(f64::to_string).collect(),
        }
    }

    /// As elements of a type, converted as C does.
    fn write(&self, data_type: DataType) -> Result<Vec<u8>> {
        macro_rules! written {
            ($ty:ty) => {
                match self {
                    Self::Integers(values) => {
                        values.iter().flat_map(|value| (*value as $ty).to_le_bytes()).collect()
                    }
                    Self::Floats(values) => {
                        values.iter().flat_map(|value| (*value as $ty).to_le_bytes()).collect()
                    }
                }
            };
        }
        Ok(match data_type {
            DataType::Int8 => written!(i8),
            DataType::Int16 => written!(i16),
            DataType::Int32 => written!(i32),
            DataType::Int64 => written!(i64),
            DataType::Uint8 => written!(u8),
            DataType::Uint16 => written!(u16),
            DataType::Uint32 => written!(u32),
            DataType::Uint64 => written!(u64),
            DataType::Fp32 => written!(f32),
            DataType::Fp64 => written!(f64),
            DataType::Fp16 => {
                let floats: Vec<f64> = match self {
                    Self::Integers(values) => values.iter().map(|value| *value as f64).collect(),
                    Self::Floats(values) => values.clone(),
                };
                floats.into_iter().flat_map(|value| f16::from_f64(value).to_le_bytes()).collect()
            }
            other => return Err(Error::unsupported(format!("there is no arithmetic of {}", other.name()))),
        })
    }
}
