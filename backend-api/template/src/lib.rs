//! OUTPUT0 = INPUT0 × `factor`, a parameter of the model. Make it yours.
#![forbid(unsafe_code)]

use trireme_sdk::{
    Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless,
};

/// One for each model: what its instances share. Weights go here, in an `Arc`.
struct Scale {
    factor: f32,
}

/// One for each slot of `instance_group`, on a thread of its own. Scratch memory goes here.
struct Worker {
    factor: f32,
}

impl LoadModel for Scale {
    fn load(context: ModelContext) -> Result<Self> {
        let factor = context.config.parameter("factor")?.unwrap_or(2.0);
        context.host.info(format!("model '{}' multiplies by {factor}", context.name));
        Ok(Self { factor })
    }
}

impl Model for Scale {
    type Instance = Worker;

    fn create_instance(&self, _: InstanceContext) -> Result<Worker> {
        Ok(Worker { factor: self.factor })
    }
}

impl Instance for Worker {
    /// Requests that may run together, at most `max_batch_size` rows in all; each has its own answer.
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            request.answer(|request| {
                let input = request.input("INPUT0")?;
                let scaled = input.values::<f32>()?.iter().map(|x| x * self.factor).collect();
                Response::new().tensor("OUTPUT0", input.shape(), scaled)
            });
        }
    }
}

trireme_sdk::export_backend!(Stateless<Scale>, name = "{{name}}");
