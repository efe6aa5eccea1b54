//! The stand-in under the name `tensorrt`.
#![forbid(unsafe_code)]

trireme_sdk::export_backend!(trireme_backend_stand_in::StandInBackend, name = "tensorrt");
