use std::fmt;

/// Where a model version is in its life.
///
/// ```text
///   UNAVAILABLE ── load ──▶ LOADING ── done ──▶ READY ── unload ──▶ UNLOADING ── drained ──▶ UNAVAILABLE
///        ▲                     │ failed
///        └─────────────────────┘
/// ```
/// A reload leaves the old object READY until the new one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelState {
    /// Not served; the reason says why.
    Unavailable,
    /// Being made.
    Loading,
    /// Serves requests.
    Ready,
    /// Finishes what it has accepted, takes nothing new.
    Unloading,
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Unloading => "UNLOADING",
        })
    }
}

/// A line of the repository index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Absent for a model that was never loaded or has no usable version.
    pub version: Option<i64>,
    /// Absent for a model that was never loaded.
    pub state: Option<ModelState>,
    /// Why it is not READY; otherwise what is to be known of it, mostly nothing.
    pub reason: String,
}
