//! The status codes of the whole server and how each door says them.

/// What kind of failure an answer reports; the numbers are those of Triton's C interface.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash)]
#[repr(u32)]
pub enum StatusCode {
    /// Nobody knows better.
    Unknown = 0,
    /// The server or a backend failed.
    Internal = 1,
    /// No such model, version, region or route.
    NotFound = 2,
    /// The caller must change the request.
    InvalidArg = 3,
    /// Not now: loading, draining, queue full, or a deadline in the queue passed.
    Unavailable = 4,
    /// The server does not do this.
    Unsupported = 5,
    /// The name is taken.
    AlreadyExists = 6,
    /// The caller went away or asked to stop.
    Cancelled = 7,
}

impl StatusCode {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Internal,
        Self::NotFound,
        Self::InvalidArg,
        Self::Unavailable,
        Self::Unsupported,
        Self::AlreadyExists,
        Self::Cancelled,
    ];

    /// The code of a number of Triton's C interface; a number that is not known reads as `Unknown`.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or(Self::Unknown)
    }

    /// What Triton calls it where an error is shown with its code.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Internal => "Internal",
            Self::NotFound => "Not found",
            Self::InvalidArg => "Invalid argument",
            Self::Unavailable => "Unavailable",
            Self::Unsupported => "Unsupported",
            Self::AlreadyExists => "Already exists",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The HTTP status. Triton answers 400 for everything it has no closer status for.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::NotFound => 404,
            Self::Unavailable => 503,
            Self::Unsupported => 501,
            Self::InvalidArg | Self::AlreadyExists | Self::Cancelled | Self::Unknown => 400,
        }
    }

    /// The number of the gRPC status.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::InvalidArg => 3,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
        }
    }

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Internal => "INTERNAL",
            Self::NotFound => "NOT_FOUND",
            Self::InvalidArg => "INVALID_ARG",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unsupported => "UNSUPPORTED",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl std::fmt::Display for StatusCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::StatusCode;

    #[test]
    fn each_code_has_its_number_and_both_mappings() {
        let table: Vec<_> =
            StatusCode::ALL.iter().map(|c| (*c as u32, c.name(), c.http_status(), c.grpc_code())).collect();
        assert_eq!(
            table,
            [
                (0, "UNKNOWN", 400, 2),
                (1, "INTERNAL", 500, 13),
                (2, "NOT_FOUND", 404, 5),
                (3, "INVALID_ARG", 400, 3),
                (4, "UNAVAILABLE", 503, 14),
                (5, "UNSUPPORTED", 501, 12),
                (6, "ALREADY_EXISTS", 400, 6),
                (7, "CANCELLED", 400, 1),
            ]
        );
        assert!(StatusCode::ALL.iter().all(|c| StatusCode::from_number(*c as u32) == *c));
        assert_eq!(StatusCode::from_number(99), StatusCode::Unknown);
    }
}
