//! `grpc-timeout`: when the client does not wait any more.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Status;

/// When a call ends with DEADLINE_EXCEEDED; an extension of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

impl Deadline {
    /// That of a call's headers; none if they have none.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is not one to eight digits and a unit.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
        let time = value.to_str().ok().and_then(parse).ok_or_else(|| {
            Status::invalid_argument(format!(
                "grpc-timeout is {value:?}; it must be one to eight digits and a unit of H, M, S, m, u or n"
            ))
        })?;
        // What is too far away to be said never comes.
        Ok(Instant::now().checked_add(time).map(Self))
    }
}

pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit() {
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!([parse("1S"), parse("2M")], [1, 120].map(|seconds| Some(Duration::from_secs(seconds))));
        assert_eq!([parse("7u"), parse("7n")], [7000, 7].map(|nanos| Some(Duration::from_nanos(nanos))));
        for bad in ["", "S", "1", "1X", "-1S", "1 S", "123456789S", "+1S", "\u{e9}", "1\u{e9}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
