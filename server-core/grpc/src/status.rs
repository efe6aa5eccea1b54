//! Failures as gRPC says them.

use tonic::{Code, Status};
use trireme_protocol::{ProtocolError, StatusCode};
use trireme_runtime::ServeError;

/// The longest message: it travels in a header, which clients bound to 8 KiB and percent-encoding may triple.
const MAX_MESSAGE: usize = 2 << 10;

pub(crate) fn from_serve(error: ServeError) -> Status {
    status(error.status, error.message)
}

pub(crate) fn from_protocol(error: ProtocolError) -> Status {
    status(error.status, error.message)
}

fn status(code: StatusCode, mut message: String) -> Status {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    Status::new(Code::from_i32(code.grpc_code()), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_code() {
        let code = |status| from_serve(ServeError { status, message: String::new() }).code();
        assert_eq!(code(StatusCode::Unknown), Code::Unknown);
        assert_eq!(code(StatusCode::Internal), Code::Internal);
        assert_eq!(code(StatusCode::NotFound), Code::NotFound);
        assert_eq!(code(StatusCode::InvalidArg), Code::InvalidArgument);
        assert_eq!(code(StatusCode::Unavailable), Code::Unavailable);
        assert_eq!(code(StatusCode::Unsupported), Code::Unimplemented);
        assert_eq!(code(StatusCode::AlreadyExists), Code::AlreadyExists);
        assert_eq!(code(StatusCode::Cancelled), Code::Cancelled);
    }

    #[test]
    fn a_message_fits_a_header() {
        let long = ServeError { status: StatusCode::Internal, message: "é".repeat(4000) };
        assert!(from_serve(long).message().len() <= MAX_MESSAGE + 3);
    }
}
