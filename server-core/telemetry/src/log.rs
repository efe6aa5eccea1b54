use std::fmt::{self, Write};
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line a message: a letter for the level, the time of day, who speaks, what.
    Default,
    /// The same with whole ISO 8601 times.
    Iso8601,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The value of `--log-format` that asks for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Iso8601 => "ISO8601",
            Self::Json => "json",
        }
    }
}

/// What is logged, how, and where.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// 0 is the usual.
    pub verbose: u32,
    /// Whether information is logged.
    pub info: bool,
    /// Whether warnings are logged.
    pub warning: bool,
    /// Whether errors are logged.
    pub error: bool,
    /// The form of lines.
    pub format: LogFormat,
    /// Standard error if absent; appended to.
    pub file: Option<PathBuf>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { verbose: 0, info: true, warning: true, error: true, format: LogFormat::Default, file: None }
    }
}

/// Starts the log of the process. Calling it twice keeps the first.
///
/// # Errors
/// The file cannot be opened.
pub fn init_logging(options: &LogOptions) -> std::io::Result<()> {
    let LogOptions { verbose, info, warning, error, format, file } = options.clone();
    let wanted = filter::filter_fn(move |metadata| match *metadata.level() {
        Level::ERROR => error,
        Level::WARN => warning,
        Level::INFO => info,
        // The libraries below are silent unless much is asked for.
        Level::DEBUG => verbose >= 1 && (verbose >= 2 || ours(metadata.target())),
        Level::TRACE => verbose >= 3,
    });
    let writer: Box<dyn std::io::Write + Send> = match file {
        Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        None => Box::new(std::io::stderr()),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(Mutex::new(writer)).with_ansi(false);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_filter(wanted).boxed(),
        plain => {
            layer.event_format(Line { whole_time: plain == LogFormat::Iso8601 }).with_filter(wanted).boxed()
        }
    };
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(())
}

fn ours(target: &str) -> bool {
    target.starts_with("trireme") || target == "backend"
}

/// A line that is a line: control characters of a message are escaped, so that no client can forge one.
struct Line {
    whole_time: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            Level::INFO => 'I',
            Level::DEBUG | Level::TRACE => 'V',
        };
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // 2026-11-23T14:00:00.123456Z: the time of day is enough for a reader.
        let time = if self.whole_time { &time } else { time.get(11..23).unwrap_or(&time) };
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
