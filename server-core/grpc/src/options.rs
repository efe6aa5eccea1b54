use trireme_telemetry::LogOptions;

/// How the gRPC front end is set up.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// What `LogSettings` answers.
    pub log: LogOptions,
    /// The longest message that is taken, inflated, in bytes; at most 2 GiB less one.
    pub max_message: usize,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self { log: LogOptions::default(), max_message: i32::MAX as usize }
    }
}
