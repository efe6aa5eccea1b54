//! The unload request.

use std::collections::BTreeMap;

use crate::error::{ProtocolError, Result};
use crate::limits::Limits;
use crate::proto::ModelRepositoryParameter;
use crate::proto::model_repository_parameter::ParameterChoice;

const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// What an unload request asks for beside the model's name.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct UnloadRequest {
    /// Also unload the models that were loaded only for this one.
    pub unload_dependents: bool,
}

impl UnloadRequest {
    /// Decodes an HTTP body, which may be empty; parameters of other names are passed over.
    ///
    /// # Errors
    /// Broken JSON, or an `unload_dependents` that is no bool.
    pub fn from_json(body: &[u8], limits: &Limits) -> Result<Self> {
        let mut request = Self::default();
        super::each_parameter(body, limits, |reader, key| {
            match key {
                UNLOAD_DEPENDENTS => request.unload_dependents = reader.bool()?,
                _ => drop(reader.skip()?),
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// Decodes the parameters of the gRPC message; those of other names are passed over.
    ///
    /// # Errors
    /// An `unload_dependents` that is no bool.
    pub fn from_proto(parameters: &BTreeMap<String, ModelRepositoryParameter>) -> Result<Self> {
        match parameters.get(UNLOAD_DEPENDENTS).map(|p| &p.parameter_choice) {
            None => Ok(Self::default()),
            Some(Some(ParameterChoice::BoolParam(unload_dependents))) => {
                Ok(Self { unload_dependents: *unload_dependents })
            }
            Some(_) => Err(ProtocolError::invalid(format!("parameter '{UNLOAD_DEPENDENTS}' must be a bool"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ParameterChoice, UnloadRequest};
    use crate::{Limits, proto::ModelRepositoryParameter};

    #[test]
    fn both_doors() {
        let json = |text: &str| UnloadRequest::from_json(text.as_bytes(), &Limits::default());
        let yes = UnloadRequest { unload_dependents: true };
        assert_eq!(json("").unwrap(), UnloadRequest::default());
        assert_eq!(json(r#"{"parameters":{"unload_dependents":true,"x":[1]}}"#).unwrap(), yes);
        assert!(json(r#"{"parameters":{"unload_dependents":1}}"#).is_err());
        let grpc = |choice| {
            let value = ModelRepositoryParameter { parameter_choice: Some(choice) };
            UnloadRequest::from_proto(&[("unload_dependents".to_owned(), value)].into())
        };
        assert_eq!(grpc(ParameterChoice::BoolParam(true)).unwrap(), yes);
        assert!(grpc(ParameterChoice::Int64Param(1)).is_err());
    }
}
