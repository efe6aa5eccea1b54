//! Shows what a batch is made of, as an engine sees it that joins the tensors of all requests.
//!
//! | output | what it is |
//! |---|---|
//! | `ALL_<input>` | the values of this input of all requests of the batch, one behind the other; the same for each request |
//! | `OWN_<input>` | the request's own values, without any dimensions but their number |
//! | `REQUESTS` | how many requests the batch has (INT32) |
//!
//! All inputs are of the same type as their outputs. `execute_delay_ms` makes a batch slow, for tests.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delay that is asked for")]

use std::time::Duration;

use trireme_sdk::{
    DataType, Error, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result,
    Stateless,
};

struct Ragged {
    outputs: Vec<Output>,
    batches: bool,
    delay: Duration,
}

#[derive(Clone)]
struct Output {
    name: String,
    data_type: DataType,
    shows: Shows,
}

#[derive(Clone)]
enum Shows {
    All(String),
    Own(String),
    Requests,
}

impl LoadModel for Ragged {
    fn load(context: ModelContext) -> Result<Self> {
        let delay = context.config.parameter::<u64>("execute_delay_ms")?.unwrap_or_default();
        let output = |name: String, data_type| {
            let shows = if let Some(input) = name.strip_prefix("ALL_") {
                Shows::All(input.to_owned())
            } else if let Some(input) = name.strip_prefix("OWN_") {
                Shows::Own(input.to_owned())
            } else if name == "REQUESTS" {
                Shows::Requests
            } else {
                let message = format!("output '{name}': ragged has ALL_<input>, OWN_<input> and REQUESTS");
                return Err(Error::invalid(message));
            };
            Ok(Output { name, data_type, shows })
        };
        let outputs =
            context.config.outputs()?.into_iter().map(|tensor| output(tensor.name, tensor.data_type));
        Ok(Self {
            outputs: outputs.collect::<Result<_>>()?,
            batches: context.config.max_batch_size() > 0,
            delay: Duration::from_millis(delay),
        })
    }
}

impl Model for Ragged {
    type Instance = Ragged;
    fn create_instance(&self, _: InstanceContext) -> Result<Ragged> {
        Ok(Ragged { outputs: self.outputs.clone(), ..*self })
    }
}

impl Instance for Ragged {
    fn execute(&mut self, batch: Vec<Request>) {
        std::thread::sleep(self.delay);
        let joined: Vec<Result<Vec<u8>>> = self
            .outputs
            .iter()
            .map(|output| match &output.shows {
                Shows::All(input) => join(&batch, input),
                Shows::Own(_) => Ok(Vec::new()),
                Shows::Requests => Ok((batch.len() as i32).to_le_bytes().to_vec()),
            })
            .collect();
        for request in batch {
            request.answer(|request| self.answer(request, &joined));
        }
    }
}

impl Ragged {
    fn answer(&self, request: &Request, joined: &[Result<Vec<u8>>]) -> Result<Response> {
        let mut response = Response::new();
        for (number, (output, joined)) in self.outputs.iter().zip(joined).enumerate() {
            if !request.wants_output(number) {
                continue;
            }
            let (data, cut) = match &output.shows {
                Shows::Own(input) => (request.input(input)?.data()?.into_owned(), true),
                Shows::All(_) | Shows::Requests => (joined.clone()?, false),
            };
            let width = output.data_type.byte_size().ok_or_else(|| Error::unsupported("texts"))?;
            let count = (data.len() / width) as i64;
            let shape = if self.batches && !cut { vec![1, count] } else { vec![count] };
            response = response.raw(&output.name, output.data_type, &shape, data)?;
        }
        Ok(response)
    }
}

fn join(batch: &[Request], input: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for request in batch {
        all.extend_from_slice(&request.input(input)?.data()?);
    }
    Ok(all)
}

trireme_sdk::export_backend!(Stateless<Ragged>, name = "ragged");
