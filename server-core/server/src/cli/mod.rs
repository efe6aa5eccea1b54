//! The command line: `trireme serve` with tritonserver's flag names, and `trireme check`.

mod flags;
mod known;

pub use flags::{Check, Cli, Command, ControlModeFlag, LogFormatFlag, Serve};
pub use known::{Finding, review};
