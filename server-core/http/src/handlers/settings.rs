//! Log and trace settings: readable; changing them while the server runs is not supported.

use serde_json::json;
use trireme_protocol::grpc::parse_version;
use trireme_runtime::Core;
use trireme_telemetry::LogOptions;

use crate::answer::{self, Answer, Failure};

/// `/v2/logging`.
pub(crate) fn logging(log: &LogOptions, get: bool) -> Result<Answer, Failure> {
    if !get {
        return Err(Failure::unsupported(
            "the log settings cannot be changed while the server runs: restart it with other --log-* flags",
        ));
    }
    let file = log.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let settings = json!({
        "log_file": file,
        "log_info": log.info,
        "log_warning": log.warning,
        "log_error": log.error,
        "log_verbose_level": log.verbose,
        "log_format": log.format.name(),
    });
    Ok(answer::json(settings.to_string()))
}

/// `/v2/trace/setting` and `/v2/models/M/trace/setting`: tracing is off.
pub(crate) fn trace(core: &Core, model: Option<&str>, get: bool) -> Result<Answer, Failure> {
    if let Some(model) = model {
        core.model_ready(model, parse_version("")?)?;
    }
    if !get {
        return Err(Failure::unsupported("tracing is not supported: the trace settings cannot be changed"));
    }
    let settings = json!({
        "trace_file": "",
        "trace_level": ["OFF"],
        "trace_rate": "1000",
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_mode": "triton",
    });
    Ok(answer::json(settings.to_string()))
}
