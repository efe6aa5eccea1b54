//! A backend that misbehaves on request; for tests only. Parameter `fault`:
//! `panic_load`, `panic_create`, `panic_execute`, `drop` (no answer), `twice` (answers two times), `wrong_shape`,
//! `wrong_name`, `wrong_type`, `late_drop` (drops the request on another thread), `tell_address` (behaves, but logs where
//! INPUT0 is), `fail` (answers with an error), `device_lost` and
//! `device_lost_load` (tells the server that a device is lost, in `execute` and in `load`), `openai` (answers calls of OpenAI's API as the field `ask` of their body
//! says: see [`openai`]).
#![forbid(unsafe_code)]

mod openai;

use trireme_sdk::{
    DataType, Error, Host, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Response,
    Result, Stateless,
};

const FAULTS: &[&str] = &[
    "panic_load",
    "panic_create",
    "panic_execute",
    "drop",
    "twice",
    "wrong_shape",
    "wrong_name",
    "wrong_type",
    "late_drop",
    "tell_address",
    "fail",
    "device_lost",
    "device_lost_load",
    "openai",
];

struct Hostile {
    fault: String,
    host: Host,
}

impl LoadModel for Hostile {
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    fn load(context: ModelContext) -> Result<Self> {
        let fault = context.config.parameter::<String>("fault")?.unwrap_or_default();
        if !FAULTS.contains(&fault.as_str()) {
            return Err(Error::invalid(format!("unknown fault '{fault}', known are {FAULTS:?}")));
        }
        if fault == "panic_load" {
            panic!("asked to panic in load");
        }
        if fault == "device_lost_load" {
            context.host.device_lost(LOST);
            return Err(Error::unavailable(LOST));
        }
        Ok(Self { fault, host: context.host })
    }
}

impl Model for Hostile {
    type Instance = Hostile;
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    fn create_instance(&self, _: InstanceContext) -> Result<Hostile> {
        if self.fault == "panic_create" {
            panic!("asked to panic in create_instance");
        }
        Ok(Hostile { fault: self.fault.clone(), host: self.host.clone() })
    }

    fn openai_endpoints(&self) -> &[&str] {
        if self.fault == "openai" { ENDPOINTS } else { &[] }
    }
}

/// What the device said.
const LOST: &str = "device 0: an illegal memory access was encountered";

/// Without the fault, no such calls are to come.
const ENDPOINTS: &[&str] = &["chat/completions", "completions"];

impl Instance for Hostile {
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    fn execute(&mut self, batch: Vec<Request>) {
        for mut request in batch {
            match self.fault.as_str() {
                "panic_execute" => panic!("asked to panic in execute"),
                "late_drop" => drop(std::thread::spawn(move || drop(request))),
                "twice" => {
                    let answer = || Response::new().tensor("OUTPUT0", &[1, 1], vec![1.0f32]);
                    if let (Ok(first), Ok(second)) = (answer(), answer()) {
                        request.responder().send(first);
                        request.respond(second);
                    }
                }
                "wrong_shape" => request.answer(|_| {
                    let data = vec![0; 3];
                    // Four elements are claimed: `raw` would refuse a type whose size it knows.
                    Response::new().raw("OUTPUT0", DataType::Bytes, &[4, 1], data)
                }),
                "wrong_name" => request.answer(|_| Response::new().tensor("NOBODY", &[1, 1], vec![1.0f32])),
                "wrong_type" => request.answer(|_| Response::new().tensor("OUTPUT0", &[1, 1], vec![1i64])),
                "tell_address" => request.answer(|request| {
                    let input = request.input("INPUT0")?;
                    let address = input.pieces()?.first().map(|piece| piece.as_ptr());
                    self.host.info(format!("INPUT0 is at {address:?}"));
                    Response::new().forward("OUTPUT0", request, &input)
                }),
                "fail" => request.fail(Error::internal("asked to fail")),
                "device_lost" => {
                    self.host.device_lost(LOST);
                    request.fail(Error::unavailable(LOST));
                }
                "openai" => openai::answer(request, &self.host),
                _ => drop(request),
            }
        }
    }
}

trireme_sdk::export_backend!(Stateless<Hostile>, name = "hostile");
