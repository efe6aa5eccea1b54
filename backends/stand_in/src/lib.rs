//! Stands in for the models of Triton's QA suites, which need frameworks or Python that are not here; for tests only.
//! What a model does follows from its name, as the suites name their models (see [`Operation::of`]).
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delays that are asked for")]

mod arithmetic;
mod complete;
mod counted;
mod operation;
mod sequences;

use std::thread::sleep;

use trireme_sdk::{Error, InstanceContext, Model, ModelContext, Parameter, Request, Response, Result};

use crate::operation::Operation;
use crate::sequences::Sums;

/// A model.
pub struct StandIn {
    operation: Operation,
    initialize: std::time::Duration,
    host: trireme_sdk::Host,
    outputs: Vec<trireme_sdk::TensorConfig>,
}

/// An instance of it.
pub struct Instance {
    operation: Operation,
    host: trireme_sdk::Host,
    outputs: Vec<trireme_sdk::TensorConfig>,
    sums: Sums,
}

/// The backend, under whatever name.
pub struct StandInBackend;

impl trireme_sdk::Backend for StandInBackend {
    type Model = StandIn;

    /// As the frameworks, it has instances of either kind; suites tell them apart. No GPU is used.
    fn info() -> trireme_sdk::Info {
        trireme_sdk::Info { devices: trireme_sdk::Devices::CpuAndGpu, ..trireme_sdk::Info::default() }
    }

    fn create(_: trireme_sdk::BackendContext) -> Result<Self> {
        Ok(Self)
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<trireme_sdk::ConfigPatch>> {
        Ok(complete::patch(context))
    }

    fn load(&self, context: ModelContext) -> Result<StandIn> {
        StandIn::load(context)
    }
}

impl StandIn {
    fn load(context: ModelContext) -> Result<Self> {
        let operation = Operation::of(&context)?;
        operation::find_file(&context)?;
        operation::find_outputs(&context)?;
        if operation::logs_its_load(&context) {
            context.host.info(format!("[PB model] Loading version {}", context.version));
        }
        if operation == Operation::FailFirst {
            let indicator = context.version_dir.join("indicator");
            if !indicator.exists() {
                // The suite looks at whether the load was tried again, not at this file.
                let _ = std::fs::write(&indicator, "");
                return Err(Error::internal("failing first load attempt"));
            }
            let _ = std::fs::remove_file(&indicator);
        }
        let (initialize, outputs) = (operation::initialize_delay(&context), context.config.outputs()?);
        Ok(Self { operation, initialize, host: context.host, outputs })
    }
}

impl Model for StandIn {
    type Instance = Instance;
    fn create_instance(&self, _: InstanceContext) -> Result<Instance> {
        sleep(self.initialize);
        if self.operation == Operation::Counted {
            counted::count("initialize");
            sleep(counted::delay("initialize"));
        }
        let operation = self.operation.clone();
        Ok(Instance {
            operation,
            host: self.host.clone(),
            outputs: self.outputs.clone(),
            sums: Sums::default(),
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.operation == Operation::Counted {
            counted::count("finalize");
        }
    }
}

impl trireme_sdk::Instance for Instance {
    fn execute(&mut self, batch: Vec<Request>) {
        match &self.operation {
            Operation::AddSub { delay, .. } | Operation::Sequence { delay, .. } => sleep(*delay),
            Operation::Counted => sleep(counted::delay("infer")),
            _ => {}
        }
        self.sums.new_batch();
        for (row, request) in batch.into_iter().enumerate() {
            match &self.operation {
                Operation::Square => square(request),
                Operation::Silent => request.into_responder().close(),
                Operation::Sequence { kind, .. } => {
                    let (sums, output) = (&mut self.sums, self.outputs.first());
                    let output = output.map_or("OUTPUT", |output| output.name.as_str());
                    request.answer(|request| sums.step(*kind, row, output, request));
                }
                operation => request.answer(|request| self.one(operation, request)),
            }
        }
    }
}

impl Instance {
    fn one(&self, operation: &Operation, request: &Request) -> Result<Response> {
        match operation {
            Operation::AddSub { swap, .. } => arithmetic::add_sub(request, &self.outputs, *swap),
            Operation::One => Response::new().tensor("OUTPUT0", &[1], vec![1f32]),
            Operation::Parameters => parameters(request),
            Operation::Fail => Err(Error::internal("An Error Occurred")),
            Operation::State => self.state(request),
            Operation::SleepInput => {
                let seconds = request.input("INPUT0")?.values::<f32>()?.first().copied().unwrap_or_default();
                sleep(std::time::Duration::try_from_secs_f32(seconds).unwrap_or_default());
                self.identity(request)
            }
            _ => self.identity(request),
        }
    }

    fn state(&self, request: &Request) -> Result<Response> {
        let number = |name: &str| request.input(name).and_then(|input| input.value::<i64>());
        let (id, state) = (number("SEQ_ID__2")?, number("SEQ_STATE_IN__3")?);
        let start = request.input("SEQ_START__1")?.value::<f32>()? != 0.0;
        if state != if start { 0 } else { id } {
            self.host.error("[MODEL ERROR] Invalid sequence state");
        }
        let microseconds = u64::try_from(number("DELAY_ITRS__0")?).unwrap_or_default();
        sleep(std::time::Duration::from_micros(microseconds));
        let shape = request.input("DELAY_ITRS__0")?.shape();
        Response::new().tensor("DUMMY_OUT__0", shape, vec![id])?.tensor("SEQ_STATE_OUT__1", shape, vec![id])
    }

    /// Every input that is there, as the output of the same number.
    fn identity(&self, request: &Request) -> Result<Response> {
        let digits = |name: &str| name.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
        request.inputs().try_fold(Response::new(), |response, input| {
            let of_number = |output: &trireme_sdk::TensorConfig| digits(&output.name) == digits(input.name());
            match self.outputs.iter().position(of_number) {
                Some(number) if request.wants_output(number) => {
                    response.forward(&self.outputs[number].name, request, &input)
                }
                _ => Ok(response),
            }
        })
    }
}

/// As many answers as the value says, each the value.
fn square(request: Request) {
    let value = match request.input("IN").and_then(|input| input.value::<i32>()) {
        Ok(value) => value,
        Err(error) => return request.fail(error),
    };
    let mut responder = request.into_responder();
    for _ in 0..value {
        match Response::new().tensor("OUT", &[1], vec![value]) {
            Ok(response) => responder.send(response),
            Err(error) => return responder.fail(error),
        };
    }
    responder.close();
}

/// The request's parameters as two tensors of texts.
fn parameters(request: &Request) -> Result<Response> {
    let (keys, values): (Vec<String>, Vec<String>) = request
        .parameters()
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Parameter::Bool(true) => "True".to_owned(),
                Parameter::Bool(false) => "False".to_owned(),
                Parameter::Int(value) => value.to_string(),
                Parameter::Double(value) => value.to_string(),
                Parameter::String(value) => value,
            };
            (key, value)
        })
        .unzip();
    let shape = [i64::try_from(keys.len()).unwrap_or(i64::MAX)];
    Response::new().bytes("key", &shape, &keys)?.bytes("value", &shape, &values)
}
