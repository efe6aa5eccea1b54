//! The listener of the metrics.

use std::future::Future;
use std::io;
use std::sync::Arc;

use http::header::EXPECT;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use trireme_protocol::Limits;
use trireme_runtime::Core;

use crate::answer::{Answer, Failure, TEXT, method_not_allowed, not_found, with_type};
use crate::body;
use crate::options::HttpOptions;
use crate::serve::serve_with;

/// Nobody has to send a body to get metrics.
const MAX_BODY: usize = 64 << 10;

/// Serves the metrics in Prometheus' text form under `/metrics` until `shutdown` is ready.
///
/// # Errors
/// As [`serve`](crate::serve).
pub async fn serve_metrics(
    core: Arc<Core>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let answer = move |request: Request<Incoming>| {
        let core = Arc::clone(&core);
        async move { answer(&core, request).await.unwrap_or_else(Failure::into_answer) }
    };
    serve_with(answer, listener, HttpOptions::default().header_timeout, Vec::new(), shutdown).await
}

async fn answer(core: &Core, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let limits = Limits { max_body: MAX_BODY, ..Limits::default() };
    body::read(body, &limits, head.headers.contains_key(EXPECT)).await?;
    if !matches!(head.uri.path(), "/metrics" | "/metrics/") {
        return Ok(not_found().into_answer());
    }
    if head.method != Method::GET {
        return Ok(method_not_allowed().into_answer());
    }
    Ok(with_type(StatusCode::OK, TEXT, core.metrics_text()))
}
