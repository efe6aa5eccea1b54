//! Faults that can be built in on purpose, to show that the simulation finds them.
//!
//! A build with `--cfg trireme_mutant="lost-on-reload"` has that one fault; a usual build has none of this.
//! `cargo xtask sim --mutants` builds them one by one: every name that stands in a `mutant!` of this crate.

/// Whether this build has the fault of this name.
macro_rules! mutant {
    ($name:tt) => {
        cfg!(trireme_mutant = $name)
    };
}
pub(crate) use mutant;
