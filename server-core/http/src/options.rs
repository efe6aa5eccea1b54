use std::time::Duration;

use regex::Regex;
use tokio::runtime::Handle;
use trireme_drain::Debts;
use trireme_protocol::Restrictions;
use trireme_telemetry::LogHandle;

/// How the HTTP front end is set up.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// What `/v2/logging` shows and changes.
    pub log: LogHandle,
    /// Which calls need a secret header.
    pub restrictions: Restrictions,
    /// Headers of infer requests with such names become parameters.
    pub forward: Option<Regex>,
    /// How long a connection may take for the head of a request, the time that it idles before it included.
    pub header_timeout: Duration,
    /// Runtimes that the connections are dealt out to, best of one thread each: a connection then stays on its thread,
    /// and an answer wakes that thread alone. Empty: the runtime that `serve` runs on.
    pub threads: Vec<Handle>,
    /// Where it is kept what clients are owed; at the end the server waits for that, not for connections.
    pub debts: Debts,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            log: LogHandle::default(),
            restrictions: Restrictions::default(),
            forward: None,
            header_timeout: Duration::from_secs(75),
            threads: Vec::new(),
            debts: Debts::default(),
        }
    }
}
