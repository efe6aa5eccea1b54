//! Log and trace settings, and shared memory: what is asked is answered, what would change something is refused.

use tonic::Status;
use trireme_protocol::proto::log_settings_response::SettingValue as LogValue;
use trireme_protocol::proto::log_settings_response::setting_value::ParameterChoice;
use trireme_protocol::proto::trace_setting_response::SettingValue as TraceValue;
use trireme_protocol::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
};
use trireme_runtime::Core;
use trireme_telemetry::LogOptions;

use crate::status::from_serve;

pub(crate) fn log(options: &LogOptions, request: &LogSettingsRequest) -> Result<LogSettingsResponse, Status> {
    if !request.settings.is_empty() {
        return Err(Status::unimplemented(
            "the log settings cannot be changed while the server runs: restart it with other --log-* flags",
        ));
    }
    let file = options.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let settings = [
        ("log_file", ParameterChoice::StringParam(file)),
        ("log_info", ParameterChoice::BoolParam(options.info)),
        ("log_warning", ParameterChoice::BoolParam(options.warning)),
        ("log_error", ParameterChoice::BoolParam(options.error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(options.verbose)),
        ("log_format", ParameterChoice::StringParam(options.format.name().to_owned())),
    ];
    let settings = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), LogValue { parameter_choice: Some(value) }));
    Ok(LogSettingsResponse { settings: settings.collect() })
}

pub(crate) fn trace(core: &Core, request: &TraceSettingRequest) -> Result<TraceSettingResponse, Status> {
    if !request.model_name.is_empty() {
        core.model_ready(&request.model_name, None).map_err(from_serve)?;
    }
    if !request.settings.is_empty() {
        return Err(Status::unimplemented("tracing is not supported: the trace settings cannot be changed"));
    }
    let settings = [
        ("trace_file", ""),
        ("trace_level", "OFF"),
        ("trace_rate", "1000"),
        ("trace_count", "-1"),
        ("log_frequency", "0"),
        ("trace_mode", "triton"),
    ];
    let settings =
        settings.map(|(name, value)| (name.to_owned(), TraceValue { value: vec![value.to_owned()] }));
    Ok(TraceSettingResponse { settings: settings.into() })
}

/// Register and unregister answer as upstream does with `--allow-client-shm=false`, its default.
pub(crate) fn no_shared_memory<T>() -> Result<T, Status> {
    Err(Status::unimplemented("Client shared memory is disabled: send tensors in the request instead"))
}

/// There are no regions, so none of a name.
pub(crate) fn no_region<T: Default>(kind: &str, name: &str) -> Result<T, Status> {
    if name.is_empty() {
        return Ok(T::default());
    }
    let name = name.escape_debug();
    Err(Status::not_found(format!("Unable to find {kind} shared memory region: '{name}'")))
}
