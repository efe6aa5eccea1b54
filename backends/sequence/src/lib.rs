//! Running sums: OUTPUT of a request is the sum of INPUT over its sequence so far, element by element (INT32, wrapping).
//!
//! Needs the control START; READY, END and CORRID are used where the configuration has them. Where the sum is kept:
//! * with an implicit state of inputs INPUT_STATE and OUTPUT_STATE: by the server;
//! * with CORRID: here, under that name;
//! * else here, under the row of the batch, as the direct strategy allows.
//!
//! `execute_delay_ms` makes a batch slow, for tests.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delay that is asked for")]

use std::collections::HashMap;
use std::time::Duration;

use trireme_sdk::{
    DataType, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless,
};

struct Sums {
    delay: Duration,
}

impl LoadModel for Sums {
    fn load(context: ModelContext) -> Result<Self> {
        let delay = context.config.parameter::<u64>("execute_delay_ms")?.unwrap_or_default();
        Ok(Self { delay: Duration::from_millis(delay) })
    }
}

impl Model for Sums {
    type Instance = Adder;
    fn create_instance(&self, _: InstanceContext) -> Result<Adder> {
        Ok(Adder { delay: self.delay, sums: HashMap::new() })
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Row(usize),
    Name(Vec<u8>),
}

struct Adder {
    delay: Duration,
    sums: HashMap<Key, Vec<i32>>,
}

impl Instance for Adder {
    fn execute(&mut self, batch: Vec<Request>) {
        std::thread::sleep(self.delay);
        for (row, request) in batch.into_iter().enumerate() {
            request.answer(|request| self.step(row, request));
        }
    }
}

impl Adder {
    fn step(&mut self, row: usize, request: &Request) -> Result<Response> {
        if !flag(request, "READY", true)? {
            return Ok(Response::new());
        }
        let input = request.input("INPUT")?;
        let (shape, values) = (input.shape(), input.values::<i32>()?);
        let add = |sum: &[i32]| -> Vec<i32> {
            let before = sum.iter().copied().chain(std::iter::repeat(0));
            values.iter().zip(before).map(|(value, sum)| value.wrapping_add(sum)).collect()
        };
        if let Some(state) = request.optional_input("INPUT_STATE") {
            let sum = add(&state.values::<i32>()?);
            return Response::new().tensor("OUTPUT", shape, sum.clone())?.tensor("OUTPUT_STATE", shape, sum);
        }
        let key = match request.optional_input("CORRID") {
            Some(name) => Key::Name(name.data()?.into_owned()),
            None => Key::Row(row),
        };
        if flag(request, "START", false)? {
            self.sums.remove(&key);
        }
        let sum = add(self.sums.get(&key).map_or(&[], Vec::as_slice));
        if flag(request, "END", false)? {
            self.sums.remove(&key);
        } else {
            self.sums.insert(key, sum.clone());
        }
        Response::new().tensor("OUTPUT", shape, sum)
    }
}

/// A control of any of its types; `absent` where the model has none of this name.
fn flag(request: &Request, name: &str, absent: bool) -> Result<bool> {
    let Some(input) = request.optional_input(name) else { return Ok(absent) };
    Ok(match input.data_type() {
        DataType::Int32 => input.value::<i32>()? != 0,
        DataType::Fp32 => input.value::<f32>()? != 0.0,
        _ => input.value::<bool>()?,
    })
}

trireme_sdk::export_backend!(Stateless<Sums>, name = "sequence");
