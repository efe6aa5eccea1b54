use tokio::runtime::Handle;
use trireme_telemetry::LogOptions;

/// How the gRPC front end is set up.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// What `LogSettings` answers.
    pub log: LogOptions,
    /// The longest message that is taken, inflated, in bytes; at most 2 GiB less one.
    pub max_message: usize,
    /// Runtimes that the connections are dealt out to, best of one thread each: a connection then stays on its thread,
    /// and an answer wakes that thread alone. Empty: the runtime that `serve` runs on.
    pub threads: Vec<Handle>,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self { log: LogOptions::default(), max_message: i32::MAX as usize, threads: Vec::new() }
    }
}
