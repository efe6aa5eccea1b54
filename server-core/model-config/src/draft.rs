use std::ops::Range;
use std::path::{Path, PathBuf};

use trireme_protocol::proto::ModelConfig;

use crate::capabilities::Capabilities;
use crate::check::{check, check_members};
use crate::checked::CheckedConfig;
use crate::finding::{Finding, Severity};
use crate::json::config_from_json;
use crate::normalise::normalise;
use crate::textproto::{self, Spans};

/// Configurations larger than this are not read: real ones have a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration as it was written.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// The message.
    pub proto: ModelConfig,
    path: Option<PathBuf>,
    text: String,
    spans: Spans,
}

impl Draft {
    /// Reads a `config.pbtxt`.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing that is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Finding> {
        let refuse = |message: String| Finding::without_place(Severity::Error, Some(path), message);
        let length =
            std::fs::metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?.len();
        if length > MAX_BYTES {
            return Err(refuse(format!("has {length} bytes; at most {MAX_BYTES} are read")));
        }
        let bytes = std::fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            // What comes before the bad byte is the same text, so that the place holds.
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            let text = String::from_utf8_lossy(error.as_bytes());
            let message = format!("the byte {byte:#04x} is not UTF-8");
            Finding::at(Severity::Error, Some(path), &text, Some(at..at + 1), message)
        })?;
        Self::parse(Some(path), text)
    }

    /// Reads the text of a `config.pbtxt`.
    ///
    /// # Errors
    /// The first thing that is wrong in it.
    pub fn parse(path: Option<&Path>, text: String) -> Result<Self, Finding> {
        let refuse = |message: &str| Finding::without_place(Severity::Error, path, message);
        if text.len() as u64 > MAX_BYTES {
            return Err(refuse(&format!("has {} bytes; at most {MAX_BYTES} are read", text.len())));
        }
        let descriptor = crate::descriptor().ok_or_else(|| refuse("the schema cannot be read"))?;
        let (message, spans) = textproto::parse(&text, &descriptor)
            .map_err(|error| Finding::at(Severity::Error, path, &text, Some(error.span), error.message))?;
        let proto = message.transcode_to().map_err(|error| refuse(&error.to_string()))?;
        Ok(Self { proto, path: path.map(Path::to_owned), text, spans })
    }

    /// Reads a configuration in JSON.
    ///
    /// # Errors
    /// The first thing that is wrong in it.
    pub fn from_json(text: &str) -> Result<Self, Finding> {
        if text.len() as u64 > MAX_BYTES {
            let message = format!("configuration: has {} bytes; at most {MAX_BYTES} are read", text.len());
            return Err(Finding::without_place(Severity::Error, None, message));
        }
        let proto = config_from_json(text).map_err(|error| {
            Finding::without_place(Severity::Error, None, format!("configuration: {error}"))
        })?;
        Ok(Self { proto, ..Self::default() })
    }

    /// Fills in the defaults. `directory` is the name of the model's directory, `files` the names of the files in the
    /// version's.
    pub fn normalise(&mut self, directory: &str, files: &[String]) {
        normalise(&mut self.proto, directory, files);
    }

    /// Holds the configuration against every rule. Warnings come with the configuration, errors in its place.
    ///
    /// # Errors
    /// All findings, among them at least one error.
    pub fn check(&self, directory: &str) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
        self.check_for(directory, &Capabilities::default())
    }

    /// As [`Draft::check`], for a server that has more than the bare minimum.
    ///
    /// # Errors
    /// All findings, among them at least one error.
    pub fn check_for(
        &self,
        directory: &str,
        capabilities: &Capabilities,
    ) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
        check(self, directory, capabilities)
    }

    /// Holds the steps of `ensemble`, which was made of this draft, against the models that they name. `member` gives the
    /// configuration of the model of step n, or says why there is none.
    ///
    /// # Errors
    /// All findings, each at the line of its step.
    pub fn check_members<'a>(
        &'a self,
        ensemble: &'a CheckedConfig,
        member: &dyn Fn(usize) -> Result<&'a CheckedConfig, String>,
    ) -> Result<(), Vec<Finding>> {
        let Some(steps) = ensemble.ensemble() else { return Ok(()) };
        let findings = check_members(self, ensemble, steps, member);
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    /// Slips that change nothing for the server, but hardly are what the author meant.
    pub(crate) fn slips(&self) -> Vec<Finding> {
        let slip = |(path, span): &(String, Range<usize>)| {
            let message = format!("'{path}' is given twice: the last one counts");
            Finding::at(Severity::Warning, self.path.as_deref(), &self.text, Some(span.clone()), message)
        };
        self.spans.repeated().iter().map(slip).collect()
    }

    /// The rules about files that the configuration names, to be asked before a backend reads one of them to complete it.
    ///
    /// # Errors
    /// A file outside the directory in which it belongs.
    pub fn check_files(&self) -> Result<(), Vec<Finding>> {
        let findings = crate::check::files(self);
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    /// A finding about a field.
    pub fn finding(&self, severity: Severity, field: &str, message: impl Into<String>) -> Finding {
        Finding::at(severity, self.path.as_deref(), &self.text, self.spans.find(field), message.into())
    }
}
