//! Doubles X into Y. The test builds it with interfaces of other ages.
#![forbid(unsafe_code)]

use trireme_sdk::{
    Backend, BackendContext, Info, Instance, InstanceContext, Model, ModelContext, Request, Response, Result,
};

struct Compat;

struct Doubler(i64);

impl Backend for Compat {
    type Model = Doubler;

    /// Not the default, so that it is seen whether it arrives.
    fn info() -> Info {
        Info { max_in_flight: 3, ..Info::default() }
    }

    fn create(_: BackendContext) -> Result<Self> {
        Ok(Self)
    }

    fn load(&self, context: ModelContext) -> Result<Doubler> {
        context.host.info("loaded");
        Ok(Doubler(context.version + 1))
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

trireme_sdk::export_backend!(Compat, name = "compat");
