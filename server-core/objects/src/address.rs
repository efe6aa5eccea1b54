//! The addresses of repositories, spelled as Triton spells them.

use crate::error::ObjectsError;

pub(crate) const SCHEME: &str = "s3://";

/// `s3://bucket/path`, `s3://host:port/bucket/path` or `s3://http(s)://host:port/bucket/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Absent for Amazon's own. Without a scheme it is plain HTTP, as upstream takes it.
    pub(crate) endpoint: Option<String>,
    pub(crate) bucket: String,
    /// Without slashes around it; empty for the whole bucket.
    pub(crate) prefix: String,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ObjectsError> {
        let refuse = |why: &str| ObjectsError::Address { address: text.to_owned(), why: why.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| refuse("it does not begin with s3://"))?;
        let (scheme, rest) = match (rest.strip_prefix("http://"), rest.strip_prefix("https://")) {
            (Some(rest), _) => (Some("http"), rest),
            (_, Some(rest)) => (Some("https"), rest),
            (None, None) => (None, rest),
        };
        let rest = rest.trim_matches('/');
        let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = first.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port && scheme.is_none() {
            let bucket = bucket(first).ok_or_else(|| refuse("it names no bucket"))?;
            return Ok(Self { endpoint: None, bucket, prefix: prefix(after) });
        }
        if first.is_empty() || first.starts_with(':') || first.contains(['@', '?', '#', ' ']) {
            return Err(refuse("what stands before the bucket is no host"));
        }
        let (name, path) = after.split_once('/').unwrap_or((after, ""));
        let bucket = bucket(name).ok_or_else(|| refuse("it names a host, but no bucket behind it"))?;
        let endpoint = Some(format!("{}://{first}", scheme.unwrap_or("http")));
        Ok(Self { endpoint, bucket, prefix: prefix(path) })
    }

    /// Whether what is sent can be read by others.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

fn bucket(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!name.is_empty() && name.chars().all(fine)).then(|| name.to_owned())
}

/// Slashes in a row are one.
fn prefix(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        let read = |text: &str| {
            let Address { endpoint, bucket, prefix } = Address::parse(text).unwrap();
            (endpoint.unwrap_or_default(), bucket, prefix)
        };
        let is = |text: &str, endpoint: &str, bucket: &str, prefix: &str| {
            assert_eq!(read(text), (endpoint.to_owned(), bucket.to_owned(), prefix.to_owned()), "{text}");
        };
        is("s3://models", "", "models", "");
        is("s3://models/a//b/", "", "models", "a/b");
        is("s3://store:9000/models/a", "http://store:9000", "models", "a");
        is("s3://http://127.0.0.1:9000/models", "http://127.0.0.1:9000", "models", "");
        is("s3://https://store.example:443/models/a", "https://store.example:443", "models", "a");
        is("s3://https://store.example/models", "https://store.example", "models", "");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let refused = |text: &str| Address::parse(text).unwrap_err().to_string();
        assert!(refused("s3://").contains("names no bucket"));
        assert!(refused("s3://http://store:9000").contains("no bucket behind it"));
        assert!(refused("s3://http://:9000/models").contains("no host"));
        assert!(refused("s3://buck et/x").contains("names no bucket"));
    }
}
