//! Which groups of calls need a secret header, and which headers become parameters of a request. The rules are the
//! same for every door; nothing else decides on access, so that no door can be forgotten.

use crate::error::{ProtocolError, Result};
use crate::infer::{InferRequest, ParameterValue, is_reserved_parameter};

/// A group of calls that can be restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiGroup {
    /// Whether the server and its models live and are ready.
    Health,
    /// What the server and its models say of themselves.
    Metadata,
    /// Infer and generate, streams included.
    Inference,
    /// Regions of shared memory.
    SharedMemory,
    /// The configurations of models.
    ModelConfig,
    /// Index, load and unload.
    ModelRepository,
    /// The statistics of models.
    Statistics,
    /// The settings of tracing.
    Trace,
    /// The settings of the log.
    Logging,
}

impl ApiGroup {
    /// All groups with their names.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Health, "health"),
        (Self::Metadata, "metadata"),
        (Self::Inference, "inference"),
        (Self::SharedMemory, "shared-memory"),
        (Self::ModelConfig, "model-config"),
        (Self::ModelRepository, "model-repository"),
        (Self::Statistics, "statistics"),
        (Self::Trace, "trace"),
        (Self::Logging, "logging"),
    ];
}

/// A header that a restricted call must have.
#[derive(Clone, PartialEq, Eq)]
struct Secret {
    /// As the operator wrote it, after the door's prefix.
    header: String,
    value: Vec<u8>,
}

/// The restricted groups of one door.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    of: [Option<Secret>; ApiGroup::ALL.len()],
}

impl std::fmt::Debug for Restrictions {
    // Without the secrets: options end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers = ApiGroup::ALL.iter().zip(&self.of);
        f.debug_map()
            .entries(headers.filter_map(|((_, name), secret)| Some((name, &secret.as_ref()?.header))))
            .finish()
    }
}

impl Restrictions {
    /// Adds `GROUP[,GROUP…]:KEY=VALUE`. The header is `prefix` and the key; `what` names the groups in errors.
    ///
    /// # Errors
    /// Another form, an unknown group, a group that is restricted already, or a key that no header can have.
    pub fn add(&mut self, option: &str, prefix: &str, what: &str) -> Result<()> {
        let parts = option.split_once(':').and_then(|(groups, setting)| {
            let (key, value) = setting.split_once('=')?;
            (!groups.is_empty() && !key.is_empty() && !value.is_empty()).then_some((groups, key, value))
        });
        let Some((groups, key, value)) = parts else {
            return Err(ProtocolError::invalid("expected <group>[,<group>]:<key>=<value>"));
        };
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
            return Err(ProtocolError::invalid(format!("'{key}' cannot be the name of a header")));
        }
        for name in groups.split(',') {
            let Some(at) = ApiGroup::ALL.iter().position(|(_, known)| *known == name) else {
                return Err(ProtocolError::invalid(format!("unknown restricted {what} '{name}'")));
            };
            let secret = Secret { header: format!("{prefix}{key}"), value: value.as_bytes().to_vec() };
            if self.of[at].replace(secret).is_some() {
                return Err(ProtocolError::invalid(format!(
                    "restricted {what} '{name}' can not be specified in multiple config groups"
                )));
            }
        }
        Ok(())
    }

    /// Whether a call of a group may go on. `header` looks up the request's headers by name, without regard to case.
    ///
    /// # Errors
    /// The name of the header that is missing or wrong.
    pub fn check<'h>(
        &self,
        group: ApiGroup,
        header: impl FnOnce(&str) -> Option<&'h [u8]>,
    ) -> std::result::Result<(), &str> {
        let Some(secret) = &self.of[group as usize] else { return Ok(()) };
        let given = header(&secret.header).unwrap_or_default();
        if equal(given, &secret.value) { Ok(()) } else { Err(&secret.header) }
    }

    /// Whether no group is restricted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.iter().all(Option::is_none)
    }
}

/// Comparison whose time does not tell how much of a secret was right.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// Makes a header a parameter of a request; one of the same name is replaced.
///
/// # Errors
/// A name that has a meaning of its own.
pub fn forward_header(request: &mut InferRequest, name: &str, value: &[u8]) -> Result<()> {
    if is_reserved_parameter(name) {
        return Err(ProtocolError::invalid(format!(
            "Header '{name}' is reserved for Triton usage and cannot be forwarded."
        )));
    }
    let value = String::from_utf8_lossy(value).into_owned();
    request.parameters.insert(name, ParameterValue::String(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn restrictions(options: &[&str]) -> Result<Restrictions, String> {
        let mut all = Restrictions::default();
        for option in options {
            all.add(option, "p-", "api").map_err(|error| error.message)?;
        }
        Ok(all)
    }

    #[test]
    fn groups_stand_in_the_order_of_their_numbers() {
        assert!(ApiGroup::ALL.iter().enumerate().all(|(at, (group, _))| *group as usize == at));
    }

    #[test]
    fn a_restricted_group_needs_its_header() {
        let all = restrictions(&["health,shared-memory:Key=a=b", "inference:other=c"]).unwrap();
        let check = |group, value: Option<&'static [u8]>| {
            all.check(group, |name| value.filter(|_| name == "p-Key")).map_err(str::to_owned)
        };
        assert_eq!(check(ApiGroup::Metadata, None), Ok(()));
        assert_eq!(check(ApiGroup::Health, Some(b"a=b")), Ok(()));
        for wrong in [None, Some(b"".as_slice()), Some(b"a"), Some(b"a=c"), Some(b"a=bb")] {
            assert_eq!(check(ApiGroup::Health, wrong), Err("p-Key".to_owned()));
            assert_eq!(check(ApiGroup::SharedMemory, wrong), Err("p-Key".to_owned()));
        }
        assert_eq!(check(ApiGroup::Inference, Some(b"c")), Err("p-other".to_owned()));
        assert!(!all.is_empty() && Restrictions::default().is_empty());
        assert!(!format!("{all:?}").contains("a=b"), "{all:?}");
    }

    #[test]
    fn what_cannot_be_restricted_is_said() {
        let refusal = |options: &[&str]| restrictions(options).unwrap_err();
        assert_eq!(refusal(&["healthy:a=b"]), "unknown restricted api 'healthy'");
        assert_eq!(
            refusal(&["health:a=b", "trace,health:c=d"]),
            "restricted api 'health' can not be specified in multiple config groups"
        );
        assert_eq!(refusal(&["health:a b=c"]), "'a b' cannot be the name of a header");
        for broken in ["health", "health:a", "health:=b", "health:a=", ":a=b"] {
            assert!(refusal(&[broken]).contains("expected"), "{broken}");
        }
    }

    #[test]
    fn headers_become_parameters_unless_they_are_reserved() {
        let mut request = InferRequest::new("m", None);
        forward_header(&mut request, "x-tenant", b"a").unwrap();
        forward_header(&mut request, "x-tenant", b"b\xff").unwrap();
        assert_eq!(request.parameters.get("x-tenant"), Some(&ParameterValue::String("b\u{fffd}".to_owned())));
        for name in ["timeout", "headers", "triton_x"] {
            let error = forward_header(&mut request, name, b"1").unwrap_err();
            assert_eq!(
                error.message,
                format!("Header '{name}' is reserved for Triton usage and cannot be forwarded.")
            );
        }
    }
}
