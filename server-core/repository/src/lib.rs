//! Where models and backends are on disk: what the repositories hold, which versions there are, and which file is a
//! backend's library. Reads directories only; nothing is loaded here.
#![forbid(unsafe_code)]

mod backend;
mod scan;

pub use backend::{BackendNotFound, BackendPlaces, find_backend};
pub use scan::{FoundModel, FoundVersion, RepositoryError, scan};
