//! Multiplies on an NVIDIA GPU, so that a tensor can be seen to stay there between two models. The server, or whoever provides
//! the GPU's memory, gives all memory: this library has a kernel and streams. For tests only.
//!
//! X FP32 \[n\] → Y FP32 \[n\] on the GPU of the instance, WHERE UINT64 \[2\]: the addresses of X, 0 if it came in the memory
//! of the process, and of Y. Parameters: `factor`; `delay_us`, how long the kernel waits first, so that the answer leaves long
//! before the bytes are there.

mod gpu;

use trireme_sdk::{
    Backend, BackendContext, DataType, Devices, Error, Info, Instance, InstanceContext, InstanceKind, Model,
    ModelContext, Request, Response, Result,
};

use gpu::Stream;

struct Scale;

#[derive(Clone, Copy)]
struct Factor {
    factor: f32,
    delay_us: u64,
}

struct Scaler {
    of: Factor,
    device: i32,
    stream: Stream,
}

trireme_sdk::export_backend!(Scale, name = "scale");

impl Backend for Scale {
    type Model = Factor;

    fn info() -> Info {
        Info { devices: Devices::Gpu, reads_gpu: true, ..Info::default() }
    }

    fn create(_: BackendContext) -> Result<Self> {
        Ok(Self)
    }

    fn load(&self, context: ModelContext) -> Result<Factor> {
        let config = &context.config;
        Ok(Factor {
            factor: config.parameter("factor")?.unwrap_or(1.0),
            delay_us: config.parameter("delay_us")?.unwrap_or(0),
        })
    }
}

impl Model for Factor {
    type Instance = Scaler;

    fn create_instance(&self, context: InstanceContext) -> Result<Scaler> {
        if context.kind != InstanceKind::GPU {
            return Err(Error::invalid("an instance of 'scale' runs on a GPU: use KIND_GPU"));
        }
        Ok(Scaler { of: *self, device: context.device, stream: Stream::new(context.device)? })
    }
}

impl Instance for Scaler {
    fn execute(&mut self, batch: Vec<Request>) {
        for mut request in batch {
            match self.multiply(&mut request) {
                // The event lives until the answer has left; the kernel still reads X.
                Ok((response, done)) => request.into_responder_after(done).finish(response),
                Err(error) => {
                    // What was launched may still read X.
                    let _ = self.stream.finish();
                    request.fail(error);
                }
            }
        }
    }

    fn drain(&mut self) {
        let _ = self.stream.finish();
    }
}

impl Scaler {
    /// The answer, and the event after which X is not read any more.
    fn multiply(&self, request: &mut Request) -> Result<(Response, u64)> {
        let input = request.input("X")?;
        let (shape, len) = (input.shape().to_vec(), input.byte_size());
        let there = input.on_device()?.map_or(0, |view| view.address);
        let x = input.gather_on(self.device)?;
        let from = x.on_device().ok_or_else(|| Error::internal("what was gathered is nowhere"))?;
        let y = request.responder().allocate("Y", len, self.device)?;
        let to = y.address().ok_or_else(|| Error::internal("memory that the GPU does not reach"))?;
        let events = [from.ready_event, y.on_device().map_or(0, |view| view.ready_event)];
        // SAFETY: both have this many bytes, and are kept behind the event that this gives.
        let done = unsafe {
            self.stream.scale(to, from.address, len / 4, self.of.factor, self.of.delay_us * 1000, &events)?
        };
        x.release_after(done);
        let y = y.ready_after(self.device, done, move || gpu::destroy(done))?;
        let response =
            Response::new().memory("Y", DataType::Fp32, &shape, y)?.tensor("WHERE", &[2], vec![there, to])?;
        Ok((response, done))
    }
}
