//! The listener of the metrics.

use std::io;
use std::sync::Arc;

use http::header::EXPECT;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use trireme_drain::{Debts, Settling, Stage};
use trireme_protocol::Limits;
use trireme_runtime::Core;

use crate::answer::{Answer, Failure, TEXT, method_not_allowed, not_found, with_type};
use crate::body;
use crate::options::HttpOptions;
use crate::serve::{Terms, serve_with};

/// Nobody has to send a body to get metrics.
const MAX_BODY: usize = 64 << 10;

/// Serves the metrics in Prometheus' text form under `/metrics` until the end has come.
///
/// # Errors
/// As [`serve`](crate::serve).
pub async fn serve_metrics(
    core: Arc<Core>,
    listener: TcpListener,
    debts: Debts,
    end: watch::Receiver<Stage>,
) -> io::Result<()> {
    let answer = move |request: Request<Incoming>| {
        let core = Arc::clone(&core);
        let debts = request.extensions().get::<Debts>().cloned().unwrap_or_default();
        async move {
            let answer = answer(&core, request).await.unwrap_or_else(Failure::into_answer);
            answer.map(|body| Settling::new(body, &debts, Some(debts.open())))
        }
    };
    let header_timeout = HttpOptions::default().header_timeout;
    let terms = Terms { header_timeout, debts, keep_heads: false };
    serve_with(answer, listener, terms, Vec::new(), end).await
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
