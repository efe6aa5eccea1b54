use std::path::PathBuf;

/// Why a library cannot be used as a backend. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("backend library '{path}' cannot be read: {error}")]
    Unreadable {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The dynamic linker refused it.
    #[error("'{path}' is not a library that can be loaded: {reason}")]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker says.
        reason: String,
    },
    /// It exports no probe.
    #[error("'{path}' is not a Trireme backend: it has no symbol '{}' (probe)", trireme_abi::PROBE_SYMBOL)]
    NoProbe {
        /// The file.
        path: PathBuf,
    },
    /// The probe says something that this server cannot work with.
    #[error("backend library '{path}' cannot be used: {reason}")]
    Probe {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The layouts differ.
    #[error("backend library '{path}' was built against another ABI: {difference}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// The innermost difference: where, expected, found.
        difference: String,
    },
}
