//! Returns its inputs: INPUT0 as OUTPUT0, and so on. Any type, any shape; an absent input makes no output.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delays that are asked for")]
use std::{thread::sleep, time::Duration};
use trireme_sdk::{InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless};

/// Inputs and the outputs that they become; `execute_delay_ms`; `instance_wise_delay_multiplier`.
struct Identity(Vec<(String, String)>, Duration, u32);

impl LoadModel for Identity {
    fn load(ModelContext { config, .. }: ModelContext) -> Result<Self> {
        let number = |name: &str| config.parameter::<u32>(name).map(Option::unwrap_or_default);
        sleep(Duration::from_secs(number("creation_delay_sec")?.into()));
        let pairs = config.inputs()?.into_iter().zip(config.outputs()?).map(|(i, o)| (i.name, o.name));
        let delay = Duration::from_millis(number("execute_delay_ms")?.into());
        Ok(Self(pairs.collect(), delay, number("instance_wise_delay_multiplier")?))
    }
}
impl Model for Identity {
    type Instance = Self;
    fn create_instance(&self, context: InstanceContext) -> Result<Self> {
        Ok(Self(self.0.clone(), self.1 * self.2.saturating_mul(context.index).max(1), 0))
    }
}
impl trireme_sdk::Instance for Identity {
    fn execute(&mut self, batch: Vec<Request>) {
        sleep(self.1);
        for request in batch {
            request.answer(|request| {
                let wanted = self.0.iter().enumerate().filter(|(number, _)| request.wants_output(*number));
                let present = wanted.filter_map(|(_, pair)| Some((pair, request.optional_input(&pair.0)?)));
                let mut present = present.map(|((_, output), input)| (output, input));
                present.try_fold(Response::new(), |answer, (output, x)| answer.forward(output, request, &x))
            });
        }
    }
}
trireme_sdk::export_backend!(Stateless<Identity>, name = "identity");
