//! The stand-in under the name `pytorch`.
#![forbid(unsafe_code)]

trireme_sdk::export_backend!(trireme_sdk::Stateless<trireme_backend_stand_in::StandIn>, name = "pytorch");
