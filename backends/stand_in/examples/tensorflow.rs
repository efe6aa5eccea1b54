//! The stand-in under the name `tensorflow`.
#![forbid(unsafe_code)]

trireme_sdk::export_backend!(trireme_sdk::Stateless<trireme_backend_stand_in::StandIn>, name = "tensorflow");
