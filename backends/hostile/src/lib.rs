//! A backend that misbehaves on request; for tests only. Parameter `fault`: one of [`FAULTS`], each of which the
//! conformance kit finds, and some that are no faults: `none` (returns INPUT0), `tell_address` (behaves, but logs where
//! INPUT0 is), `device_lost` and `device_lost_load` (tells the server that a device is lost, in `execute` and in `load`)
//! and `openai` (answers calls of OpenAI's API as the field `ask` of their body says: see [`openai`]).
//!
//! What safe Rust cannot do wrong is done by `tests/abi-compat/c_backend/offender.c`.
#![forbid(unsafe_code)]

mod faults;
mod openai;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use trireme_sdk::{
    Error, Host, Instance, InstanceContext, LoadModel, Model, ModelContext, Request, Result, Stateless,
};

/// What it does wrong, by name.
pub const FAULTS: &[(&str, &str)] = &[
    ("panic_load", "panics while a model is loaded"),
    ("panic_create", "panics while an instance is made"),
    ("panic_execute", "panics with each batch"),
    ("panic_on_empty", "panics when a tensor has no elements"),
    ("abort", "ends the process"),
    ("hang", "does not return from execute"),
    ("load_fails_later", "loads a model thirty times and no more"),
    ("load_alone", "cannot load two models at once"),
    ("leak_on_load", "loses 1 MiB with each load"),
    ("drop", "gives a request back without an answer"),
    ("late_drop", "the same on another thread"),
    ("keep", "never gives a request back"),
    ("keep_after_deadline", "never gives a request back that has a deadline"),
    ("ignore_cancel", "works for three seconds, whoever waits"),
    ("ignore_pause", "sends fifty answers whether they are read or not"),
    ("twice", "answers two times"),
    ("no_outputs", "answers without a tensor"),
    ("wrong_shape", "sends 3 bytes for 4 texts"),
    ("wrong_rows", "sends a row too many"),
    ("wrong_name", "sends an output that the model does not have"),
    ("wrong_type", "sends numbers of another type"),
    ("first_piece", "reads the first piece of an input only"),
    ("utf8_only", "panics when a text is not UTF-8"),
    ("first_of_batch", "answers all requests of a batch as the first"),
    ("same_shapes_only", "refuses a batch of different shapes"),
    ("second_instance", "answers wrong from its second instance on"),
    ("fail", "answers with the error INTERNAL"),
    ("bare_error", "answers with an error that says nothing"),
    ("known_parameters_only", "refuses a parameter that it does not know"),
    ("leak_memory", "loses 16 KiB with each request"),
    ("leak_thread", "leaves a thread behind with each fiftieth request"),
    ("leak_file", "leaves a file open with each tenth request"),
];

const NO_FAULTS: &[&str] = &["none", "tell_address", "device_lost", "device_lost_load", "openai"];

pub(crate) const LOST: &str = "device 0: an illegal memory access was encountered";

struct Hostile {
    fault: String,
    host: Host,
    instance: u32,
    requests: u32,
}

impl LoadModel for Hostile {
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    #[expect(clippy::disallowed_methods, reason = "a load that takes its time")]
    fn load(context: ModelContext) -> Result<Self> {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        static LOADING: AtomicBool = AtomicBool::new(false);
        let fault = context.config.parameter::<String>("fault")?.unwrap_or_default();
        if !FAULTS.iter().any(|(name, _)| *name == fault) && !NO_FAULTS.contains(&fault.as_str()) {
            let names: Vec<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
            return Err(Error::invalid(format!(
                "unknown fault '{fault}', known are {names:?}, {NO_FAULTS:?}"
            )));
        }
        match fault.as_str() {
            "panic_load" => panic!("asked to panic in load"),
            "load_fails_later" if LOADS.fetch_add(1, SeqCst) >= 30 => {
                return Err(Error::unavailable("asked to load thirty times only"));
            }
            "leak_on_load" => faults::lose(1 << 20),
            "device_lost_load" => {
                context.host.device_lost(LOST);
                return Err(Error::unavailable(LOST));
            }
            "load_alone" => {
                if LOADING.swap(true, SeqCst) {
                    return Err(Error::internal("asked to load one model at a time"));
                }
                std::thread::sleep(Duration::from_millis(50));
                LOADING.store(false, SeqCst);
            }
            _ => {}
        }
        Ok(Self { fault, host: context.host, instance: 0, requests: 0 })
    }
}

impl Model for Hostile {
    type Instance = Hostile;
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    fn create_instance(&self, context: InstanceContext) -> Result<Hostile> {
        if self.fault == "panic_create" {
            panic!("asked to panic in create_instance");
        }
        let (fault, host) = (self.fault.clone(), self.host.clone());
        Ok(Hostile { fault, host, instance: context.index, requests: 0 })
    }

    fn openai_endpoints(&self) -> &[&str] {
        if self.fault == "openai" { ENDPOINTS } else { &[] }
    }
}

/// Without the fault, no such calls are to come.
const ENDPOINTS: &[&str] = &["chat/completions", "completions"];

impl Instance for Hostile {
    fn execute(&mut self, batch: Vec<Request>) {
        match self.fault.as_str() {
            "openai" => batch.into_iter().for_each(|request| openai::answer(request, &self.host)),
            "first_of_batch" => faults::first_of_batch(batch),
            "same_shapes_only" => faults::same_shapes_only(batch),
            _ => {
                for request in batch {
                    self.requests += 1;
                    self.misbehave(request);
                }
            }
        }
    }
}

trireme_sdk::export_backend!(Stateless<Hostile>, name = "hostile");
