use std::fmt::{self, Write};
use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::fmt::format::{self, Format, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

use crate::log_settings::{LogFormat, LogHandle, LogOptions};

/// Starts the log of the process; its settings can be changed while it runs. Calling it twice keeps the first.
///
/// # Errors
/// The file cannot be opened.
pub fn init_logging(options: &LogOptions) -> std::io::Result<LogHandle> {
    let handle = LogHandle::new(options.clone());
    let settings = handle.clone();
    // Asked once for each place that logs, and again after every change: not for every line.
    let wanted = filter::filter_fn(move |metadata| {
        let settings = settings.settings();
        match *metadata.level() {
            Level::ERROR => settings.error,
            Level::WARN => settings.warning,
            Level::INFO => settings.info,
            // The libraries below are silent unless much is asked for.
            Level::DEBUG => settings.verbose >= 1 && (settings.verbose >= 2 || ours(metadata.target())),
            Level::TRACE => settings.verbose >= 3,
        }
    });
    let writer: Box<dyn std::io::Write + Send> = match &options.file {
        Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        None => Box::new(std::io::stderr()),
    };
    let line = Line { settings: handle.clone(), json: format::format().json().flatten_event(true) };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Mutex::new(writer))
        .with_ansi(false)
        .event_format(line)
        .with_filter(wanted);
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(handle)
}

fn ours(target: &str) -> bool {
    target.starts_with("trireme") || target == "backend"
}

/// A line that is a line: control characters of a message are escaped, so that no client can forge one.
struct Line {
    settings: LogHandle,
    json: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let form = self.settings.settings().format;
        if form == LogFormat::Json {
            return self.json.format_event(context, out, event);
        }
        let level = match *event.metadata().level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            Level::INFO => 'I',
            Level::DEBUG | Level::TRACE => 'V',
        };
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // 2026-11-23T14:00:00.123456Z: the time of day is enough for a reader.
        let time = if form == LogFormat::Iso8601 { &time } else { time.get(11..23).unwrap_or(&time) };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = event.metadata().target();
        write!(out, "{level} {time} {target}] {}{}", Escaped(&fields.message), Escaped(&fields.rest))?;
        writeln!(out)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.rest, " {}={value:?}", field.name());
        }
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn a_message_cannot_make_a_second_line() {
        assert_eq!(Escaped("a\nI 00:00 x] forged\u{1b}[0m").to_string(), "a\\nI 00:00 x] forged\\u{1b}[0m");
    }
}
