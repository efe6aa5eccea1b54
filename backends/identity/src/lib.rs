//! Returns its inputs: INPUT0 as OUTPUT0, and so on. Any type, any shape.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delay that is asked for")]
use std::{thread::sleep, time::Duration};
use trireme_sdk::{InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless};

/// Names of the outputs, `execute_delay_ms`, `instance_wise_delay_multiplier`.
struct Identity(Names, Duration, u32);
struct Instance(Names, Duration);
/// An input and the output that it becomes.
type Names = Vec<(String, String)>;

impl LoadModel for Identity {
    fn load(context: ModelContext) -> Result<Self> {
        let number = |name: &str| context.config.parameter::<u32>(name).map(Option::unwrap_or_default);
        sleep(Duration::from_secs(number("creation_delay_sec")?.into()));
        let (inputs, outputs) = (context.config.inputs()?, context.config.outputs()?);
        let pairs =
            inputs.into_iter().zip(outputs).map(|(input, output)| (input.name, output.name)).collect();
        let delay = Duration::from_millis(number("execute_delay_ms")?.into());
        Ok(Self(pairs, delay, number("instance_wise_delay_multiplier")?))
    }
}
impl Model for Identity {
    type Instance = Instance;
    fn create_instance(&self, context: InstanceContext) -> Result<Instance> {
        Ok(Instance(self.0.clone(), self.1 * self.2.saturating_mul(context.index).max(1)))
    }
}
impl trireme_sdk::Instance for Instance {
    fn execute(&mut self, batch: Vec<Request>) {
        sleep(self.1);
        for request in batch {
            request.answer(|request| {
                let mut wanted =
                    self.0.iter().enumerate().filter(|(number, _)| request.wants_output(*number));
                // An optional input that is absent makes no output.
                wanted.try_fold(Response::new(), |response, (_, (input, output))| {
                    match request.optional_input(input) {
                        Some(input) => response.forward(output, request, &input),
                        None => Ok(response),
                    }
                })
            });
        }
    }
}
trireme_sdk::export_backend!(Stateless<Identity>, name = "identity");
