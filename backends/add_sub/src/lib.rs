//! OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 − INPUT1, element by element.
//!
//! All integer and float types; integers wrap. BYTES elements are decimal numbers of 32 bits, as in Triton's
//! `simple_string`.
#![forbid(unsafe_code)]

use trireme_sdk::{
    DataType, Error, Input, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response,
    Result, Stateless,
};

struct AddSub {
    outputs: [String; 2],
}

impl LoadModel for AddSub {
    fn load(context: ModelContext) -> Result<Self> {
        let (inputs, outputs) = (context.config.inputs()?, context.config.outputs()?);
        let types: Vec<DataType> = inputs.iter().chain(&outputs).map(|tensor| tensor.data_type).collect();
        if inputs.len() != 2 || outputs.len() != 2 || types.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Error::invalid("add_sub needs two inputs and two outputs, all of one data type"));
        }
        let mut names = outputs.into_iter().map(|output| output.name);
        Ok(Self { outputs: [names.next().unwrap_or_default(), names.next().unwrap_or_default()] })
    }
}

impl Model for AddSub {
    type Instance = AddSub;
    fn create_instance(&self, _: InstanceContext) -> Result<AddSub> {
        Ok(AddSub { outputs: self.outputs.clone() })
    }
}

impl Instance for AddSub {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            request.answer(|request| self.run(request));
        }
    }
}

impl AddSub {
    fn run(&self, request: &Request) -> Result<Response> {
        let mut inputs = request.inputs();
        let (Some(a), Some(b)) = (inputs.next(), inputs.next()) else {
            return Err(Error::invalid("add_sub needs two inputs"));
        };
        if a.shape() != b.shape() {
            let (left, right) = (a.shape(), b.shape());
            return Err(Error::invalid(format!("the inputs have different shapes: {left:?} and {right:?}")));
        }
        macro_rules! integers {
            ($ty:ty) => {
                self.pair::<$ty>(request, &a, &b, <$ty>::wrapping_add, <$ty>::wrapping_sub)
            };
        }
        match a.data_type() {
            DataType::Int8 => integers!(i8),
            DataType::Int16 => integers!(i16),
            DataType::Int32 => integers!(i32),
            DataType::Int64 => integers!(i64),
            DataType::Uint8 => integers!(u8),
            DataType::Uint16 => integers!(u16),
            DataType::Uint32 => integers!(u32),
            DataType::Uint64 => integers!(u64),
            DataType::Fp32 => self.pair::<f32>(request, &a, &b, |x, y| x + y, |x, y| x - y),
            DataType::Fp64 => self.pair::<f64>(request, &a, &b, |x, y| x + y, |x, y| x - y),
            DataType::Bytes => self.texts(request, &a, &b),
            other => Err(Error::unsupported(format!("add_sub does not know {}", other.name()))),
        }
    }

    fn pair<T: trireme_sdk::Element>(
        &self,
        request: &Request,
        a: &Input<'_>,
        b: &Input<'_>,
        sum: fn(T, T) -> T,
        difference: fn(T, T) -> T,
    ) -> Result<Response> {
        let (x, y) = (a.values::<T>()?, b.values::<T>()?);
        let mut response = Response::new();
        for (number, operation) in [sum, difference].into_iter().enumerate() {
            if request.wants_output(number) {
                let values = x.iter().zip(y.iter()).map(|(x, y)| operation(*x, *y)).collect();
                response = response.tensor(&self.outputs[number], a.shape(), values)?;
            }
        }
        Ok(response)
    }

    fn texts(&self, request: &Request, a: &Input<'_>, b: &Input<'_>) -> Result<Response> {
        let (x, y) = (numbers(a)?, numbers(b)?);
        let mut response = Response::new();
        for (number, operation) in [i32::wrapping_add, i32::wrapping_sub].into_iter().enumerate() {
            if request.wants_output(number) {
                let texts: Vec<String> =
                    x.iter().zip(&y).map(|(x, y)| operation(*x, *y).to_string()).collect();
                response = response.bytes(&self.outputs[number], a.shape(), &texts)?;
            }
        }
        Ok(response)
    }
}

fn numbers(input: &Input<'_>) -> Result<Vec<i32>> {
    let parse = |text: String| {
        text.trim().parse().map_err(|_| {
            Error::invalid(format!("input '{}': '{text}' is not a decimal number of 32 bits", input.name()))
        })
    };
    input.texts()?.into_iter().map(parse).collect()
}

trireme_sdk::export_backend!(Stateless<AddSub>, name = "add_sub");
