//! `/v2/logging`: what is logged, to be read and changed.

use serde_json::{Map, Value, json};
use trireme_runtime::{Core, LogLevel};
use trireme_telemetry::{LogChange, LogFormat, LogHandle};

use crate::answer::{self, Answer, Failure};
use crate::handlers::fields::object;

/// `GET /v2/logging`.
pub(crate) fn log(handle: &LogHandle) -> Answer {
    let log = handle.settings();
    let settings = json!({
        "log_file": log.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        "log_info": log.info,
        "log_warning": log.warning,
        "log_error": log.error,
        "log_verbose_level": log.verbose,
        "log_format": log.format.name(),
    });
    answer::json(settings.to_string())
}

/// `POST /v2/logging`: changes what is given and answers with all.
pub(crate) fn change_log(core: &Core, handle: &LogHandle, body: &[u8]) -> Result<Answer, Failure> {
    let change = read(&object(body, core.limits())?)?;
    handle.change(&change);
    if let Some(verbose) = change.verbose {
        core.set_log_level(if verbose > 0 { LogLevel::VERBOSE } else { LogLevel::INFO });
    }
    Ok(log(handle))
}

/// Nothing is changed unless all can be; `null` leaves a setting as it is.
fn read(settings: &Map<String, Value>) -> Result<LogChange, Failure> {
    let mut change = LogChange::default();
    for (name, value) in settings.iter().filter(|(_, value)| !value.is_null()) {
        let truth = || {
            value.as_bool().ok_or_else(|| Failure::invalid(format!("expect boolean for '{name}'"))).map(Some)
        };
        match name.as_str() {
            "log_file" => {
                return Err(Failure::unsupported(
                    "log file location can not be updated through network protocol",
                ));
            }
            "log_info" => change.info = truth()?,
            "log_warning" => change.warning = truth()?,
            "log_error" => change.error = truth()?,
            "log_verbose_level" => {
                let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
                let wrong = || Failure::invalid(format!("expect unsigned integer for '{name}'"));
                change.verbose = Some(level.ok_or_else(wrong)?);
            }
            "log_format" => {
                let text =
                    value.as_str().ok_or_else(|| Failure::invalid(format!("expect string for '{name}'")))?;
                let wrong = || {
                    let text = format!("invalid argument for --log_format, got: {text}");
                    Failure::new(http::StatusCode::SERVICE_UNAVAILABLE, text)
                };
                change.format = Some(LogFormat::from_name(text).ok_or_else(wrong)?);
            }
            _ => return Err(Failure::invalid(format!("unknown log setting '{name}'"))),
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(settings: Value) -> Result<LogChange, (u16, String)> {
        read(settings.as_object().unwrap()).map_err(|failure| (failure.status.as_u16(), failure.message))
    }

    #[test]
    fn what_is_given_is_changed() {
        let all =
            json!({"log_info": false, "log_verbose_level": 3, "log_format": "ISO8601", "log_error": null});
        let expected = LogChange {
            info: Some(false),
            verbose: Some(3),
            format: Some(LogFormat::Iso8601),
            ..LogChange::default()
        };
        assert_eq!(change(all).unwrap(), expected);
        assert_eq!(change(json!({"log_file": null})).unwrap(), LogChange::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let file = "log file location can not be updated through network protocol";
        assert_eq!(change(json!({"log_file": "/tmp/x"})).unwrap_err(), (501, file.to_owned()));
        let refused = [
            (json!({"log_info": 1}), 400, "expect boolean for 'log_info'"),
            (json!({"log_verbose_level": -1}), 400, "expect unsigned integer for 'log_verbose_level'"),
            (json!({"log_format": "short"}), 503, "invalid argument for --log_format, got: short"),
            (json!({"log_colour": true}), 400, "unknown log setting 'log_colour'"),
        ];
        for (settings, status, text) in refused {
            assert_eq!(change(settings).unwrap_err(), (status, text.to_owned()));
        }
    }
}
