//! The stand-in under the name `python`.
#![forbid(unsafe_code)]

trireme_sdk::export_backend!(trireme_backend_stand_in::StandInBackend, name = "python");
