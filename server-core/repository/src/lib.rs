//! Where models and backends are on disk: what the repositories hold, which versions there are, which file is a
//! backend's library, and whether a model would run. Reads only; nothing is loaded here.
#![forbid(unsafe_code)]

mod backend;
mod error;
mod examine;
mod find;
mod fingerprint;
mod found;
mod remote;
mod scan;
mod version;

pub use backend::{BackendNotFound, BackendPlaces, find_backend, find_runtime};
pub use error::RepositoryError;
pub use examine::{ExamineOptions, Report, Verdict, examine};
pub use find::{find, is_model_name, model_in, names, rescan};
pub use fingerprint::{Fingerprint, Stamp};
pub use found::{FoundModel, FoundVersion, Lease, NoVersion, Selection};
pub use remote::{Remote, Which};
pub use scan::{IN_TWO, scan};
