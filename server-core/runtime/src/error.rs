use trireme_protocol::StatusCode;

/// Why a call on the server failed, in the form in which a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServeError {
    /// Whose fault it is; each front end maps it to its own numbers.
    pub status: StatusCode,
    /// A sentence for the person who made the call.
    pub message: String,
}

impl ServeError {
    /// An error of any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The caller's fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::InvalidArg, message)
    }

    /// The server's or a backend's fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::Internal, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::Unavailable, message)
    }

    /// The named thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NotFound, message)
    }

    /// The server cannot do this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::Unsupported, message)
    }
}

impl From<trireme_host::Status> for ServeError {
    fn from(status: trireme_host::Status) -> Self {
        Self { status: status_from_abi(status.code), message: status.message }
    }
}

impl From<ServeError> for trireme_host::Status {
    fn from(error: ServeError) -> Self {
        use trireme_host::abi::StatusCode as Abi;
        let code = match error.status {
            StatusCode::Internal => Abi::INTERNAL,
            StatusCode::NotFound => Abi::NOT_FOUND,
            StatusCode::InvalidArg => Abi::INVALID_ARG,
            StatusCode::Unavailable => Abi::UNAVAILABLE,
            StatusCode::Unsupported => Abi::UNSUPPORTED,
            StatusCode::AlreadyExists => Abi::ALREADY_EXISTS,
            StatusCode::Cancelled => Abi::CANCELLED,
            StatusCode::Unknown => Abi::UNKNOWN,
        };
        Self { code, message: error.message }
    }
}

/// The server's name for a code that came over the ABI; what is unknown stays unknown.
fn status_from_abi(code: trireme_host::abi::StatusCode) -> StatusCode {
    use trireme_host::abi::StatusCode as Abi;
    match code {
        Abi::INTERNAL => StatusCode::Internal,
        Abi::NOT_FOUND => StatusCode::NotFound,
        Abi::INVALID_ARG => StatusCode::InvalidArg,
        Abi::UNAVAILABLE => StatusCode::Unavailable,
        Abi::UNSUPPORTED => StatusCode::Unsupported,
        Abi::ALREADY_EXISTS => StatusCode::AlreadyExists,
        Abi::CANCELLED => StatusCode::Cancelled,
        _ => StatusCode::Unknown,
    }
}
