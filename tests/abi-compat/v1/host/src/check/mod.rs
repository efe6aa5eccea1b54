//! A validation layer between the host and any backend: `TRIREME_ABI_CHECK=1`.
//!
//! With it a backend is handed tokens in the place of addresses, and other tables. Each call is looked at before it is
//! passed on, so that a broken rule is named where it is broken: a handle that was released is found dead, not followed.
//! Without it nothing of this is in the way; a backend is made with one or the other (`Backend::create`).

mod buffers;
mod extensions;
mod registry;
mod requests;
mod responders;
mod tables;

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use trireme_abi::LogLevel;

pub(crate) use registry::{Party, held_by, next_instance};
pub(crate) use tables::{host_ref, into_wire};

/// The variable that turns the layer on.
pub const VARIABLE: &str = "TRIREME_ABI_CHECK";

/// Violations that are kept for [`take_violations`]; what comes after them is logged and counted only.
const KEPT: usize = 1000;
/// How often one rule is logged for one backend; after that, each thousandth time.
const LOGGED: u64 = 10;

macro_rules! rules {
    ($($variant:ident = $name:literal, $says:literal;)*) => {
        /// A rule of the ABI that can be seen broken while a backend runs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $says] $variant,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in logs and reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it demands.
            pub fn says(self) -> &'static str {
                match self { $(Self::$variant => $says,)* }
            }
        }
    };
}

rules! {
    ResponseAfterFinal = "response-after-final", "nothing is sent after the response that carries FINAL or an error";
    OutputSize = "output-size", "the bytes of an output are exactly those of its shape and type";
    OutsideBuffer = "outside-buffer", "memory of the host is handed over as it was given, or a part of it";
    WritePastBuffer = "write-past-buffer", "nothing is written behind the end of memory that the host gave";
    UsedAfterRelease = "use-after-release", "a handle or buffer is not used after it was released or handed over";
    ReleasedTwice = "released-twice", "a handle or buffer is released once";
    UnknownHandle = "unknown-handle", "a call gets the handle that the host gave, of the kind that it asks for";
    ConcurrentCall = "concurrent-call", "two threads do not call for one responder at the same time";
    SentWhilePaused = "sent-while-paused", "after PAUSE nothing is sent until on_writable has called back";
    DrainLeftRequests = "drain-left-requests", "when drain returns, the instance holds no request and no responder";
    HeldAfterDestroy = "held-after-destroy", "when destroy returns, all requests and responders are released";
    NullResult = "null-result", "the pointer for a result is not null";
    WrittenOnError = "written-on-error", "a call that fails leaves its result alone";
    TextNotUtf8 = "text-not-utf8", "texts are UTF-8";
}

/// A rule that a backend has broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub rule: Rule,
    /// By which backend.
    pub backend: String,
    /// How.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rule, backend, what } = self;
        write!(f, "backend '{backend}' broke the rule {} ({}): {what}", rule.name(), rule.says())
    }
}

static ON: OnceLock<bool> = OnceLock::new();

#[derive(Default)]
struct Seen {
    kept: Vec<Violation>,
    counts: HashMap<(Rule, String), u64>,
}

static SEEN: OnceLock<Mutex<Seen>> = OnceLock::new();

/// Whether the environment asks for the layer.
///
/// # Errors
/// The variable has a value that is neither 0 nor 1.
pub fn asked_for() -> Result<bool, String> {
    match std::env::var_os(VARIABLE) {
        None => Ok(false),
        Some(value) if value == "1" => Ok(true),
        Some(value) if value == "0" || value.is_empty() => Ok(false),
        Some(value) => Err(format!("{VARIABLE} is {value:?}: 1 checks what backends do, 0 does not")),
    }
}

/// Whether backends that are created from now on are checked.
pub fn is_on() -> bool {
    *ON.get_or_init(|| asked_for().unwrap_or(false))
}

/// Turns the layer on, whatever the environment says; false if it is already decided that it is off.
pub fn turn_on() -> bool {
    *ON.get_or_init(|| true)
}

/// The violations since the last call, oldest first, at most a thousand.
pub fn take_violations() -> Vec<Violation> {
    std::mem::take(&mut seen().lock().unwrap_or_else(PoisonError::into_inner).kept)
}

fn seen() -> &'static Mutex<Seen> {
    SEEN.get_or_init(Mutex::default)
}

pub(crate) fn report(rule: Rule, party: &Party, what: impl Into<String>) {
    let violation = Violation { rule, backend: party.name.clone(), what: what.into() };
    let line = violation.to_string();
    let count = {
        let mut seen = seen().lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.counts.entry((rule, party.name.clone())).or_default();
        *count += 1;
        let count = *count;
        if seen.kept.len() < KEPT {
            seen.kept.push(violation);
        }
        count
    };
    // Not under the lock: the log may be slow.
    if count <= LOGGED || count.is_multiple_of(1000) {
        let again = if count > LOGGED { format!(" (seen {count} times)") } else { String::new() };
        party.services.log(LogLevel::ERROR, "abi-check", &format!("{line}{again}"));
    }
}
