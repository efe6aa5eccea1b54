use std::time::Duration;

use trireme_telemetry::LogOptions;

/// How the HTTP front end is set up.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// What `GET /v2/logging` answers.
    pub log: LogOptions,
    /// How long a connection may take for the head of a request, the time that it idles before it included.
    pub header_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { log: LogOptions::default(), header_timeout: Duration::from_secs(75) }
    }
}
