use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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

    /// The form that a setting names.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Default, Self::Iso8601, Self::Json].into_iter().find(|form| form.name() == name)
    }
}

/// What is logged, how, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What is to become other; the file never does: whoever may reach the port must not choose files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogChange {
    /// As in [`LogOptions`]; so are the rest.
    pub verbose: Option<u32>,
    /// Whether information is logged.
    pub info: Option<bool>,
    /// Whether warnings are logged.
    pub warning: Option<bool>,
    /// Whether errors are logged.
    pub error: Option<bool>,
    /// The form of lines.
    pub format: Option<LogFormat>,
}

/// The settings of the log, to be read and changed while the server runs.
#[derive(Debug, Clone, Default)]
pub struct LogHandle(Arc<Mutex<LogOptions>>);

impl LogHandle {
    /// Settings of no log; [`init_logging`](crate::init_logging) makes those of the process.
    pub fn new(options: LogOptions) -> Self {
        Self(Arc::new(Mutex::new(options)))
    }

    /// What is logged now.
    pub fn settings(&self) -> LogOptions {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is given and leaves the rest; takes effect with the next line.
    pub fn change(&self, change: &LogChange) {
        {
            let mut settings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let LogChange { verbose, info, warning, error, format } = *change;
            settings.verbose = verbose.unwrap_or(settings.verbose);
            settings.info = info.unwrap_or(settings.info);
            settings.warning = warning.unwrap_or(settings.warning);
            settings.error = error.unwrap_or(settings.error);
            settings.format = format.unwrap_or(settings.format);
        }
        // Without the lock: this asks the filter of every place that logs.
        tracing::callsite::rebuild_interest_cache();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let handle = LogHandle::new(LogOptions::default());
        handle.change(&LogChange { verbose: Some(2), info: Some(false), ..LogChange::default() });
        let other = handle.clone();
        other.change(&LogChange { format: Some(LogFormat::Iso8601), ..LogChange::default() });
        let expected =
            LogOptions { verbose: 2, info: false, format: LogFormat::Iso8601, ..LogOptions::default() };
        assert_eq!(handle.settings(), expected);
    }

    #[test]
    fn forms_have_names() {
        assert_eq!(LogFormat::from_name("ISO8601"), Some(LogFormat::Iso8601));
        assert_eq!((LogFormat::from_name("iso8601"), LogFormat::from_name("")), (None, None));
    }
}
