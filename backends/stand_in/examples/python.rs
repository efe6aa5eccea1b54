//! The stand-in under the name `python`. As Python's own backend it has instances of either kind; a suite tells them apart.
#![forbid(unsafe_code)]

use trireme_backend_stand_in::{StandIn, StandInBackend};
use trireme_sdk::{Backend, BackendContext, ConfigPatch, Devices, Info, ModelContext, Result};

struct Python(StandInBackend);

impl Backend for Python {
    type Model = StandIn;

    fn info() -> Info {
        Info { devices: Devices::CpuAndGpu, ..Info::default() }
    }

    fn create(context: BackendContext) -> Result<Self> {
        StandInBackend::create(context).map(Self)
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        self.0.complete_config(context)
    }

    fn load(&self, context: ModelContext) -> Result<StandIn> {
        self.0.load(context)
    }
}

trireme_sdk::export_backend!(Python, name = "python");
