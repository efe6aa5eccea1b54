//! Whether the server lives and is ready.

use http::StatusCode;
use trireme_runtime::Core;

use crate::answer::{Answer, empty};

/// `GET /v2/health/live`.
pub(crate) fn live(core: &Core) -> Answer {
    empty(status(core.is_live(), false))
}

/// `GET /v2/health/ready`.
pub(crate) fn ready(core: &Core) -> Answer {
    empty(status(core.is_ready(), core.is_leaving()))
}

/// `GET /health`, which some load generators ask: the same as ready with the usual number for no.
pub(crate) fn health(core: &Core) -> Answer {
    empty(if core.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

/// No is 400 as upstream says it, and 503 only on the way out.
fn status(yes: bool, leaving: bool) -> StatusCode {
    match (yes, leaving) {
        (_, true) => StatusCode::SERVICE_UNAVAILABLE,
        (true, false) => StatusCode::OK,
        (false, false) => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn no_is_400_and_503_only_on_the_way_out() {
        assert_eq!(status(true, false), 200);
        assert_eq!(status(false, false), 400);
        assert_eq!(status(true, true), 503);
        assert_eq!(status(false, true), 503);
    }
}
