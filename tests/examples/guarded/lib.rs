//! Two GPUs made of memory that the CPU cannot touch: what a server does with tensors on devices shows without a GPU. A read
//! or write of their memory by anybody but this library's stream ends the process. For tests only.
//!
//! A model multiplies: X FP32 \[n\] → Y FP32 \[n\] on the device of its instance, WHERE UINT64 \[2\]: the addresses of X, 0 if
//! it came in the memory of the process, and of Y. Parameters: `factor`; `delay_ms`, how long the kernel takes, which is
//! still running when the answer is sent; `output`: `own` (default) memory of this library, `asked` that of the server;
//! `broken`: the memory of Y cannot be copied; `withheld`: that of Y cannot be opened by other processes; `forward`: Y is X itself; `hold`: a FIFO, at whose end of file copies begin again
//! that wait from when the request is there. An input KEPT, if there is one, is an output too, and
//! so the answer keeps the request.

mod device;
mod event;
mod memory;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trireme_sdk::{
    Backend, BackendContext, DataType, DeviceProvider, DeviceView, Devices, Error, Info, Instance,
    InstanceContext, InstanceKind, Memory, Model, ModelContext, Request, Response, Result,
};

use device::{DEVICES, Guarded};

struct GuardedBackend(Arc<Guarded>);

#[derive(Clone)]
struct Multiplier {
    gpu: Arc<Guarded>,
    factor: f32,
    delay: Duration,
    asks: bool,
    broken: bool,
    withheld: bool,
    forwards: bool,
    hold: Option<PathBuf>,
    device: i32,
}

trireme_sdk::export_backend!(GuardedBackend, name = "guarded");

impl Backend for GuardedBackend {
    type Model = Multiplier;

    fn info() -> Info {
        Info { devices: Devices::Gpu, reads_gpu: true, ..Info::default() }
    }

    fn create(context: BackendContext) -> Result<Self> {
        Guarded::new(&context.host).map(Self)
    }

    fn device_provider(&self) -> Option<Arc<dyn DeviceProvider>> {
        Some(Arc::clone(&self.0) as Arc<dyn DeviceProvider>)
    }

    fn load(&self, context: ModelContext) -> Result<Multiplier> {
        let config = &context.config;
        let asks = match config.parameter::<String>("output")?.as_deref() {
            None | Some("own") => false,
            Some("asked") => true,
            Some(other) => {
                return Err(Error::invalid(format!("parameter 'output' is '{other}': own or asked")));
            }
        };
        Ok(Multiplier {
            gpu: Arc::clone(&self.0),
            factor: config.parameter("factor")?.unwrap_or(1.0),
            delay: Duration::from_millis(config.parameter("delay_ms")?.unwrap_or(0)),
            asks,
            broken: config.parameter("broken")?.unwrap_or(false),
            withheld: config.parameter("withheld")?.unwrap_or(false),
            forwards: config.parameter("forward")?.unwrap_or(false),
            hold: config.parameter::<String>("hold")?.map(PathBuf::from),
            device: 0,
        })
    }
}

impl Model for Multiplier {
    type Instance = Self;

    fn create_instance(&self, context: InstanceContext) -> Result<Self> {
        if context.kind != InstanceKind::GPU || !(0..DEVICES).contains(&context.device) {
            return Err(Error::invalid(format!("there is no GPU {}; there are {DEVICES}", context.device)));
        }
        Ok(Self { device: context.device, ..self.clone() })
    }
}

impl Instance for Multiplier {
    fn execute(&mut self, batch: Vec<Request>) {
        for mut request in batch {
            match self.multiply(&mut request) {
                Ok((response, read)) => {
                    // The kernel still reads X.
                    let responder = request.into_responder_after(read);
                    self.gpu.destroy(self.device, read);
                    responder.finish(response);
                }
                Err(error) => request.fail(error),
            }
        }
    }

    fn drain(&mut self) {
        self.gpu.finish();
    }
}

impl Multiplier {
    /// The answer, and the event after which X is not read any more.
    fn multiply(&self, request: &mut Request) -> Result<(Response, u64)> {
        let (gpu, device) = (&self.gpu, self.device);
        if let Some(until) = &self.hold {
            gpu.hold_copies(until.clone())?;
        }
        let input = request.input("X")?;
        let (shape, len) = (input.shape().to_vec(), input.byte_size());
        let there = input.on_device()?;
        if there.is_some_and(|view| view.device != device) {
            return Err(Error::internal("the input is on another device"));
        }
        if self.forwards {
            let addresses = vec![there.map_or(0, |view| view.address); 2];
            let response = Response::new().forward("Y", request, &input)?.tensor("WHERE", &[2], addresses)?;
            return Ok((response, 0));
        }
        // Of memory that came in the process a copy; of memory on the device a share.
        let x = input.gather_on(device)?;
        let from = x.on_device().ok_or_else(|| Error::internal("what was gathered is nowhere"))?;
        let y = match self.asks {
            true => request.responder().allocate("Y", len, device)?,
            false => own(gpu, device, len)?,
        };
        let address = y.address().ok_or_else(|| Error::internal("memory that the device does not reach"))?;
        if self.broken {
            gpu.break_memory(address);
        }
        if self.withheld {
            gpu.withhold(address);
        }
        let to = (address, y.on_device().is_some());
        let done = gpu.multiply(to, from.address, len, self.factor, from.ready_event, self.delay)?;
        let read = gpu.join(device, &[done])?;
        x.release_after(read);
        let unused = Arc::clone(gpu);
        let y = y.ready_after(device, done, move || unused.destroy(device, done))?;
        let addresses = vec![there.map_or(0, |view| view.address), address];
        let mut response =
            Response::new().memory("Y", DataType::Fp32, &shape, y)?.tensor("WHERE", &[2], addresses)?;
        if let Some(kept) = request.optional_input("KEPT") {
            response = response.forward("KEPT", request, &kept)?;
        }
        Ok((response, read))
    }
}

/// Memory of this library.
fn own(gpu: &Arc<Guarded>, device: i32, len: usize) -> Result<Memory> {
    let address = gpu.allocate(device, len)?;
    let (gpu, view) = (Arc::clone(gpu), DeviceView { address, byte_size: len, device, ready_event: 0 });
    // SAFETY: allocated above, and freed by nobody else.
    Ok(unsafe { Memory::of_device(view, move |done_event| gpu.free(device, address, len, done_event)) })
}
