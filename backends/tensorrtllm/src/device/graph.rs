//! Work that is recorded once and started as a whole.

use cudarc::driver::sys;

use super::{Device, Stream, check};
use crate::error::{CudaError, Result};

/// A recorded graph, ready to run.
pub struct Graph {
    device: Device,
    exec: sys::CUgraphExec,
}

// SAFETY: a handle that the driver lets any thread use, one at a time.
unsafe impl Send for Graph {}

/// A recording in progress. Dropped unfinished, it takes the stream back to normal.
pub struct Capture<'a> {
    stream: &'a Stream,
    running: bool,
}

impl<'a> Capture<'a> {
    /// From here on, work of `stream` is recorded and not run.
    pub fn begin(stream: &'a Stream) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream.raw(), mode) })?;
        Ok(Self { stream, running: true })
    }

    /// Ends the recording.
    pub fn finish(mut self, device: &Device) -> Result<Graph> {
        self.running = false;
        let mut graph = std::ptr::null_mut();
        // SAFETY: `graph` is valid for writes and the stream is recording.
        check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(self.stream.raw(), &raw mut graph) })?;
        if graph.is_null() {
            return Err(CudaError::Driver {
                call: "cuStreamEndCapture",
                error: "nothing was recorded".into(),
            });
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: `exec` is valid for writes and the graph is whole.
        let status = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0) };
        // SAFETY: the executable graph is a copy; this one is not used any more.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        check("cuGraphInstantiate", status)?;
        let graph = Graph { device: device.clone(), exec };
        // SAFETY: both are alive. Sends the graph ahead, so that the first start costs as little as the next ones.
        check("cuGraphUpload", unsafe { sys::cuGraphUpload(graph.exec, self.stream.raw()) })?;
        Ok(graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.running {
            let mut graph = std::ptr::null_mut();
            // SAFETY: the stream is recording; what was recorded is thrown away.
            let _ = unsafe { sys::cuStreamEndCapture(self.stream.raw(), &raw mut graph) };
            if !graph.is_null() {
                // SAFETY: made just above.
                let _ = unsafe { sys::cuGraphDestroy(graph) };
            }
        }
    }
}

impl Graph {
    /// Queues the whole graph.
    ///
    /// # Safety
    /// All memory that it names must be alive until it has run.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are alive; the rest is the caller's promise.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.exec, stream.raw()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: instantiated once and destroyed once.
        let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
    }
}
