//! Returns its inputs: INPUT0 as OUTPUT0, and so on. Any type, any shape.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delay that is asked for")]
use std::{thread::sleep, time::Duration};
use trireme_sdk::{InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless};

/// Names of the outputs, `execute_delay_ms`, `instance_wise_delay_multiplier`.
struct Identity(Vec<String>, Duration, u32);
struct Instance(Vec<String>, Duration);

impl LoadModel for Identity {
    fn load(context: ModelContext) -> Result<Self> {
        let number = |name: &str| context.config.parameter::<u32>(name).map(Option::unwrap_or_default);
        sleep(Duration::from_secs(number("creation_delay_sec")?.into()));
        let outputs = context.config.outputs()?.into_iter().map(|output| output.name).collect();
        let delay = Duration::from_millis(number("execute_delay_ms")?.into());
        Ok(Self(outputs, delay, number("instance_wise_delay_multiplier")?))
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
                let pairs = self.0.iter().zip(request.inputs()).enumerate();
                let mut wanted = pairs.filter(|(number, _)| request.wants_output(*number));
                wanted.try_fold(Response::new(), |response, (_, (name, input))| {
                    response.forward(name, request, &input)
                })
            });
        }
    }
}
trireme_sdk::export_backend!(Stateless<Identity>, name = "identity");
