//! The backend `tensorrtllm`: decoders on NVIDIA GPUs.
//!
//! A model has one engine for each GPU that its instance groups name; the instances of a GPU share it, and with it one
//! copy of the weights and one pool of keys and values. Two GPUs have an engine each.

mod devices;
mod gauges;
mod graphs;
mod load;
mod params;
mod tool;
mod tuning;

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_llm::serve::{Decoder, DecoderInstance, text_config};
use trireme_llm::tensors::TokenDoor;
use trireme_sdk::{
    Backend, BackendContext, ConfigPatch, DeviceProvider, Devices, Error, Info, Instance, InstanceContext,
    Model, ModelContext, Request, Result,
};

use crate::device::{self, CudaDevices};
use graphs::GraphSetting;
use tuning::Caches;

pub use params::PARAMETERS;
pub use tool::OfflineModel;

/// The backend of `libtrireme_tensorrtllm.so`.
pub struct CudaBackend {
    /// GPUs of this machine.
    gpus: usize,
    /// Their memory, for the server and for other backends.
    devices: Arc<CudaDevices>,
    settings: Settings,
}

/// What the command line says for all models.
#[derive(Clone)]
struct Settings {
    graphs: Option<GraphSetting>,
    caches: Caches,
}

/// A loaded decoder, by GPU.
pub struct CudaModel(BTreeMap<i32, Decoder>);

/// Where requests come in.
pub struct CudaInstance(DecoderInstance);

trireme_sdk::export_backend!(CudaBackend, name = "tensorrtllm");

impl Backend for CudaBackend {
    type Model = CudaModel;

    fn info() -> Info {
        Info { devices: Devices::Gpu, ..Info::default() }
    }

    fn create(context: BackendContext) -> Result<Self> {
        let settings = Settings {
            graphs: graphs::of_settings(&context.settings)?,
            caches: Caches::of_settings(&context.settings)?,
        };
        let gpus = device::count().map_err(|error| Error::unavailable(error.to_string()))?;
        if context.settings["cmdline"]["gpu_metrics"] != "false" {
            gauges::start(&context.host);
        }
        let devices = CudaDevices::new(gpus, &context.host);
        Ok(Self { gpus, devices, settings })
    }

    fn device_provider(&self) -> Option<Arc<dyn DeviceProvider>> {
        Some(Arc::clone(&self.devices) as Arc<dyn DeviceProvider>)
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        let (_, checkpoint) = load::open(context)?;
        load::decoder(&checkpoint)?;
        let patch = if TokenDoor::is_for(&context.config) { ConfigPatch::new() } else { text_config() };
        Ok(Some(patch.gpus((0..self.gpus).filter_map(|gpu| i32::try_from(gpu).ok()))))
    }

    fn load(&self, context: ModelContext) -> Result<CudaModel> {
        let gpus = devices::of_groups(context.config.json(), self.gpus)?;
        load::model(&context, &gpus, &self.settings).map(CudaModel)
    }
}

impl Model for CudaModel {
    type Instance = CudaInstance;

    fn create_instance(&self, context: InstanceContext) -> Result<CudaInstance> {
        let missing =
            || Error::internal(format!("instance '{}': no engine on GPU {}", context.name, context.device));
        self.0.get(&context.device).map(|decoder| CudaInstance(decoder.instance())).ok_or_else(missing)
    }

    fn openai_endpoints(&self) -> &[&str] {
        self.0.values().next().map_or(&[], Decoder::openai_endpoints)
    }
}

impl Instance for CudaInstance {
    fn execute(&mut self, batch: Vec<Request>) {
        self.0.execute(batch);
    }

    fn drain(&mut self) {
        self.0.drain();
    }
}
