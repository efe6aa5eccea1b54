//! The settings of the log and of tracing.

use std::collections::BTreeMap;

use tonic::Status;
use trireme_protocol::proto::log_settings_request::SettingValue as LogRequestValue;
use trireme_protocol::proto::log_settings_request::setting_value::ParameterChoice as Given;
use trireme_protocol::proto::log_settings_response::SettingValue as LogValue;
use trireme_protocol::proto::log_settings_response::setting_value::ParameterChoice;
use trireme_protocol::proto::{LogSettingsRequest, LogSettingsResponse, TraceSettingResponse};
use trireme_runtime::{Core, LogLevel};
use trireme_telemetry::{LogChange, LogFormat, LogHandle};

/// Changes what is given and answers with all.
pub(crate) fn log(
    core: &Core,
    handle: &LogHandle,
    request: &LogSettingsRequest,
) -> Result<LogSettingsResponse, Status> {
    let change = read(&request.settings)?;
    if change != LogChange::default() {
        handle.change(&change);
    }
    if let Some(verbose) = change.verbose {
        core.set_log_level(if verbose > 0 { LogLevel::VERBOSE } else { LogLevel::INFO });
    }
    let log = handle.settings();
    let file = log.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let settings = [
        ("log_file", ParameterChoice::StringParam(file)),
        ("log_info", ParameterChoice::BoolParam(log.info)),
        ("log_warning", ParameterChoice::BoolParam(log.warning)),
        ("log_error", ParameterChoice::BoolParam(log.error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(log.verbose)),
        ("log_format", ParameterChoice::StringParam(log.format.name().to_owned())),
    ];
    let settings = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), LogValue { parameter_choice: Some(value) }));
    Ok(LogSettingsResponse { settings: settings.collect() })
}

/// Nothing is changed unless all can be.
fn read(settings: &BTreeMap<String, LogRequestValue>) -> Result<LogChange, Status> {
    let mut change = LogChange::default();
    for (name, value) in settings {
        let value = value.parameter_choice.as_ref();
        let wrong = |want: &str| Status::invalid_argument(format!("expect {want} for '{name}'"));
        let truth = || match value {
            Some(Given::BoolParam(value)) => Ok(Some(*value)),
            _ => Err(wrong("boolean")),
        };
        match name.as_str() {
            "log_file" => {
                let text = "log file location can not be updated through network protocol";
                return Err(Status::unimplemented(text));
            }
            "log_info" => change.info = truth()?,
            "log_warning" => change.warning = truth()?,
            "log_error" => change.error = truth()?,
            "log_verbose_level" => match value {
                Some(Given::Uint32Param(level)) => change.verbose = Some(*level),
                _ => return Err(wrong("int32")),
            },
            "log_format" => {
                let Some(Given::StringParam(text)) = value else { return Err(wrong("string")) };
                change.format = Some(LogFormat::from_name(text).ok_or_else(|| {
                    Status::invalid_argument(format!("invalid argument for log_format, got: {text}"))
                })?);
            }
            _ => return Err(Status::invalid_argument(format!("unknown log setting '{name}'"))),
        }
    }
    Ok(change)
}

/// As upstream says it where it is built without tracing.
pub(crate) fn trace() -> Result<TraceSettingResponse, Status> {
    Err(Status::unavailable("the server does not support trace"))
}
