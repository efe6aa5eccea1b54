//! Step 1: INPUT0 comes back as OUTPUT0.
#![forbid(unsafe_code)]

use trireme_sdk::{
    Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response, Result, Stateless,
};

struct Identity;

impl LoadModel for Identity {
    fn load(_: ModelContext) -> Result<Self> {
        Ok(Self)
    }
}

impl Model for Identity {
    type Instance = Self;

    fn create_instance(&self, _: InstanceContext) -> Result<Self> {
        Ok(Self)
    }
}

impl Instance for Identity {
    fn execute(&mut self, batch: Vec<Request>) {
        for request in batch {
            request.answer(|request| {
                let input = request.input("INPUT0")?;
                // The server's own bytes, not copied.
                Response::new().forward("OUTPUT0", request, &input)
            });
        }
    }
}

trireme_sdk::export_backend!(Stateless<Identity>, name = "identity");
