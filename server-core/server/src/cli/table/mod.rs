//! All flags of the server, by heading.

mod devices;
mod front_ends;
mod models;
mod observing;

use super::flag::Flag;

/// The table: parsing, help and `docs/flags.md` come from it.
pub const TABLE: &[(&str, &[Flag])] = &[
    ("Models", models::MODELS),
    ("Backends", models::BACKENDS),
    ("HTTP", front_ends::HTTP),
    ("gRPC", front_ends::GRPC),
    ("Shared memory", front_ends::SHARED_MEMORY),
    ("Metrics", observing::METRICS),
    ("Log", observing::LOG),
    ("Tracing", observing::TRACING),
    ("Cache", models::CACHE),
    ("Scheduling", devices::SCHEDULING),
    ("Devices", devices::DEVICES),
    ("Clouds", front_ends::CLOUDS),
    ("Deprecated", observing::DEPRECATED),
];

/// Every flag of the table.
pub(super) fn flags() -> impl Iterator<Item = &'static Flag> {
    TABLE.iter().flat_map(|(_, flags)| flags.iter())
}
