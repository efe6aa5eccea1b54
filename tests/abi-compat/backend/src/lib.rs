//! Doubles X into Y. The test builds it with interfaces of other ages.
#![forbid(unsafe_code)]

use trireme_sdk::{
    Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless,
};

struct Doubler(i64);

impl LoadModel for Doubler {
    fn load(context: ModelContext) -> Result<Self> {
        context.host.info("loaded");
        Ok(Self(context.version + 1))
    }
}

impl Model for Doubler {
    type Instance = Self;
    fn create_instance(&self, _: InstanceContext) -> Result<Self> {
        Ok(Self(self.0))
    }
}

impl Instance for Doubler {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            request.answer(|request| {
                let input = request.input("X")?;
                let doubled = input.values::<i32>()?.iter().map(|x| x * self.0 as i32).collect();
                Response::new().tensor("Y", input.shape(), doubled)
            });
        }
    }
}

trireme_sdk::export_backend!(Stateless<Doubler>, name = "compat");
