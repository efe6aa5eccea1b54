use std::time::Duration;

use regex::Regex;
use tokio::runtime::Handle;
use trireme_drain::Debts;
use trireme_protocol::Restrictions;
use trireme_telemetry::LogHandle;

use crate::tls::Tls;

/// How the gRPC front end is set up.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// What `LogSettings` shows and changes.
    pub log: LogHandle,
    /// The longest message that is taken, inflated, in bytes; at most 2 GiB less one.
    pub max_message: usize,
    /// Absent where connections are not encrypted.
    pub tls: Option<Tls>,
    /// Which calls need a secret in their metadata.
    pub restrictions: Restrictions,
    /// Metadata of infer requests with such keys becomes parameters.
    pub forward: Option<Regex>,
    /// Whether answers are compressed for clients that take it.
    pub compress: bool,
    /// A connection is pinged after so long a silence.
    pub keepalive_time: Duration,
    /// A ping must be answered within this time.
    pub keepalive_timeout: Duration,
    /// A connection that is so old takes no more calls; unbounded if absent.
    pub max_connection_age: Option<Duration>,
    /// The running calls of such a connection have this long; unbounded if absent.
    pub max_connection_age_grace: Option<Duration>,
    /// Runtimes that the connections are dealt out to, best of one thread each: a connection then stays on its thread,
    /// and an answer wakes that thread alone. Empty: the runtime that `serve` runs on.
    pub threads: Vec<Handle>,
    /// Where it is kept what clients are owed; at the end the server waits for that, not for connections.
    pub debts: Debts,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            log: LogHandle::default(),
            max_message: i32::MAX as usize,
            tls: None,
            restrictions: Restrictions::default(),
            forward: None,
            compress: false,
            keepalive_time: Duration::from_secs(7200),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: None,
            max_connection_age_grace: None,
            threads: Vec::new(),
            debts: Debts::default(),
        }
    }
}
