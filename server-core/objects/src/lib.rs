//! Repositories in object stores (`s3://…`): a private copy of their models, kept in step.
//!
//! ```text
//!  bucket/prefix/m/1/model ──list──▶ changed? ──fetch──▶ <tmp>/<copy>/m/1/model ──rename──▶ <tmp>/view/m (a link)
//! ```
//! A copy of a model is whole or not there: it is made in a directory of its own, and what is read of it must be what was
//! listed before and after. Files that have not changed are links to those of the copy before. A copy goes when nobody
//! serves from it any more.
#![forbid(unsafe_code)]

mod address;
mod connector;
mod error;
mod fetch;
mod listing;
mod mirror;

pub use error::ObjectsError;
pub use mirror::Mirror;

/// Whether a repository's path is the address of an object store that can be copied from.
pub fn is_address(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(address::SCHEME))
}
