//! `Content-Encoding` of requests and `Accept-Encoding` of answers: gzip and deflate.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use trireme_protocol::Limits;

use crate::answer::Failure;

/// A form that bytes can have on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// In the zlib format, as the HTTP standard means it.
    Deflate,
}

impl Encoding {
    fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case("deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }

    pub(crate) const fn header_value(self) -> HeaderValue {
        match self {
            Self::Gzip => HeaderValue::from_static("gzip"),
            Self::Deflate => HeaderValue::from_static("deflate"),
        }
    }

    /// The bytes that were meant, at most as many as a body may have.
    ///
    /// # Errors
    /// 400 for broken data and for more bytes than the limit.
    pub(crate) fn inflate(self, body: &[u8], limits: &Limits) -> Result<Bytes, Failure> {
        // One byte more than is allowed tells a body at the limit from one over it.
        let most = limits.max_body as u64 + 1;
        let mut out = Vec::new();
        let result = match self {
            Self::Gzip => GzDecoder::new(body).take(most).read_to_end(&mut out),
            Self::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut out),
        };
        result.map_err(|error| Failure::invalid(format!("the request body cannot be inflated: {error}")))?;
        if out.len() > limits.max_body {
            let most = limits.max_body;
            let text = format!("the inflated request body exceeds the maximum allowed value of {most} bytes");
            return Err(Failure::invalid(text));
        }
        Ok(out.into())
    }

    /// The pieces of an answer as one compressed buffer.
    pub(crate) fn deflate(self, pieces: &[Bytes]) -> std::io::Result<Bytes> {
        fn write(mut to: impl Write, pieces: &[Bytes]) -> std::io::Result<()> {
            pieces.iter().try_for_each(|piece| to.write_all(piece))
        }
        let level = Compression::fast();
        Ok(match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                write(&mut encoder, pieces)?;
                encoder.finish()?.into()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                write(&mut encoder, pieces)?;
                encoder.finish()?.into()
            }
        })
    }
}

/// The encoding of a request; `None` where its body is as it is.
///
/// # Errors
/// 501 with the header that says what is understood.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
    let name = value.to_str().unwrap_or("?").trim();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Encoding::from_name(name).map(Some).ok_or_else(|| {
        Failure::unsupported(format!("unsupported Content-Encoding: {name}; gzip and deflate are understood"))
            .with_hint(ACCEPT_ENCODING, "gzip, deflate")
    })
}

/// The encoding that the client likes best; `None` where it likes the bytes as they are at least as well.
pub(crate) fn of_answer(headers: &HeaderMap) -> Option<Encoding> {
    let value = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let mut best: Option<(u16, Encoding)> = None;
    let mut identity = 0;
    for choice in value.split(',') {
        let (name, weight) = choice.split_once(';').unwrap_or((choice, ""));
        let Some(weight) = weight_of(weight) else { continue };
        if name.trim().eq_ignore_ascii_case("identity") {
            identity = weight;
        } else if let Some(encoding) = Encoding::from_name(name.trim())
            && weight > best.map_or(0, |(weight, _)| weight)
        {
            best = Some((weight, encoding));
        }
    }
    // Said without weights, identity beside gzip is only the fallback that it always is.
    best.filter(|(weight, _)| *weight >= identity).map(|(_, encoding)| encoding)
}

/// Thousandths of `q=…`; without one the weight is 1.
fn weight_of(text: &str) -> Option<u16> {
    let text = text.trim();
    if text.is_empty() {
        return Some(1000);
    }
    let number: f32 = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?.trim().parse().ok()?;
    (0.0..=1.0).contains(&number).then_some((number * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accept(value: &'static str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        of_answer(&headers)
    }

    #[test]
    fn weights_decide() {
        assert_eq!(of_answer(&HeaderMap::new()), None);
        assert_eq!(accept("gzip, deflate, br"), Some(Encoding::Gzip));
        assert_eq!(accept("gzip;q=0.5, deflate;q=0.8"), Some(Encoding::Deflate));
        assert_eq!(accept("gzip;q=0, identity"), None);
        assert_eq!(accept("identity, gzip;q=0.5"), None);
        assert_eq!(accept("identity"), None);
        assert_eq!(accept("br"), None);
        assert_eq!(accept("gzip;q=x, ;;, deflate;q=2"), None);
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let pieces = [Bytes::from_static(b"abc"), Bytes::from(vec![7; 4000])];
        let limits = Limits { max_body: 4003, ..Limits::default() };
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let small = encoding.deflate(&pieces).unwrap();
            assert!(small.len() < 100);
            assert_eq!(encoding.inflate(&small, &limits).unwrap(), pieces.concat());
            let tight = Limits { max_body: 4002, ..limits };
            let failure = encoding.inflate(&small, &tight).unwrap_err();
            assert_eq!(
                failure.message,
                "the inflated request body exceeds the maximum allowed value of 4002 bytes"
            );
            assert_eq!(encoding.inflate(&small[..20], &limits).unwrap_err().status, 400);
        }
    }

    #[test]
    fn an_unknown_encoding_says_what_is_known() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
        let answer = of_request(&headers).unwrap_err().into_answer();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[ACCEPT_ENCODING]),
            (501, &"gzip, deflate".parse().unwrap())
        );
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert_eq!(of_request(&headers).unwrap(), None);
    }
}
