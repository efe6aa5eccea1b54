//! Connections: accepted, served and, at the end, drained.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use trireme_drain::{Debts, Settling, Stage, Wire, backlog};
use trireme_runtime::Core;

use crate::body::Body;
use crate::farewell::Farewell;
use crate::heads::{Heads, Watched};
use crate::options::HttpOptions;
use crate::patience::FirstBytes;
use crate::router::Router;

/// HTTP/2: how much a client may send ahead on a stream and on a connection. A tensor of a few MiB needs no
/// round trip; what is received and not yet read is bounded by it.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const MAX_FRAME: u32 = 1 << 20;
const MAX_STREAMS: u32 = 1024;
/// How long the other side has to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait when no connection can be accepted, as when all file descriptors are used.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the core over HTTP until the end has come. From [`Stage::Leaving`] on running requests finish, and each
/// connection ends with its next answer (HTTP/1) or when its client has learned of it (HTTP/2).
///
/// # Errors
/// The listener has no local address any more. What fails on one connection ends that connection only.
pub async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    options: HttpOptions,
    end: watch::Receiver<Stage>,
) -> io::Result<()> {
    let terms = Terms {
        header_timeout: options.header_timeout,
        debts: options.debts.clone(),
        keep_heads: options.forward.is_some(),
    };
    let threads = options.threads.clone();
    let router = Arc::new(Router::new(core, options));
    let answer = move |request: Request<Incoming>| {
        let router = Arc::clone(&router);
        async move { router.answer(request).await }
    };
    serve_with(answer, listener, terms, threads, end).await
}

/// What holds for every connection.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// As in [`HttpOptions`].
    pub(crate) header_timeout: Duration,
    pub(crate) debts: Debts,
    /// Whether requests get their [`RawHead`](crate::heads::RawHead), too.
    pub(crate) keep_heads: bool,
}

/// The same for any handler of requests.
pub(crate) async fn serve_with<H, F>(
    handler: H,
    listener: TcpListener,
    terms: Terms,
    threads: Vec<Handle>,
    end: watch::Receiver<Stage>,
) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Settling<Body>>> + Send + 'static,
{
    listener.local_addr()?;
    let Terms { header_timeout, debts, keep_heads } = terms;
    let builder = Arc::new(connections(header_timeout));
    // Every connection holds a sender; when all are gone, so are the connections.
    let (running, mut ended) = mpsc::channel::<()>(1);
    let mut threads = threads.iter().cycle();
    let mut open = |stream: std::net::TcpStream| {
        let (handler, builder, running) = (handler.clone(), Arc::clone(&builder), running.clone());
        let (end, debts) = (end.clone(), debts.of_connection());
        let last = end.borrow().last_of_connection();
        let connection = async move {
            let _running = running;
            // Made where it is served, so that its events arrive there.
            let stream = Wire::new(TcpStream::from_std(stream)?, &debts);
            let heads = keep_heads.then(Heads::default);
            let stream = Watched::new(FirstBytes::within(stream, header_timeout), heads.clone());
            let farewell = Arc::new(Farewell::default());
            let (owed, asked) = (debts.clone(), Arc::clone(&farewell));
            let service = service_fn(move |mut request: Request<Incoming>| {
                let version = request.version();
                asked.note(version, &owed);
                request.extensions_mut().insert(owed.clone());
                if let Some(raw) = heads.as_ref().and_then(|heads| heads.take(&request)) {
                    request.extensions_mut().insert(raw);
                }
                let (answer, debts) = (handler(request), owed.clone());
                async move {
                    let mut answer = answer.await;
                    if debts.is_farewell() && version <= Version::HTTP_11 {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let told = async move {
                last.reached(end).await;
                farewell.goaway(&debts).await;
            };
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = told => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        let connection = async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection ended: {error}");
            }
        };
        match threads.next() {
            Some(thread) => drop(thread.spawn(connection)),
            None => drop(tokio::spawn(connection)),
        }
    };
    let mut closed = pin!(Stage::Closed.reached(end.clone()));
    loop {
        tokio::select! {
            stream = accept(&listener) => open(stream),
            () = &mut closed => break,
        }
    }
    // Who is connected already, though not accepted yet, would be reset.
    backlog(listener).for_each(&mut open);
    drop(running);
    let _ = ended.recv().await;
    Ok(())
}

fn connections(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without half-close hyper watches for the end of the connection while a handler runs: the client's departure.
    // Names of headers look as upstream writes them: some clients compare them as text.
    let http1 = &mut builder.http1();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .half_close(false)
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(1 << 20)
        // A peer that is gone without a word is found out.
        .keep_alive_interval(header_timeout)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

async fn accept(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            // Answers leave in one write: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            stream.into_std()
        });
        match accepted {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A head that never ends, however often a part of it comes.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_given_up() {
        let answer = async |_: Request<Incoming>| unreachable!("no head is whole");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let terms = Terms { header_timeout: Duration::from_secs(75), ..Terms::default() };
        let (_stage, end) = watch::channel(Stage::default());
        tokio::spawn(serve_with(answer, listener, terms, Vec::new(), end));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut answer = Vec::new();
        for _ in 0..100 {
            if client.write_all(b"a: b\r\n").await.is_err() {
                return;
            }
            let read = client.read_buf(&mut answer);
            if tokio::time::timeout(Duration::from_secs(10), read)
                .await
                .is_ok_and(|read| read.map_or(0, |n| n) == 0)
            {
                return;
            }
        }
        panic!("the connection is open after 1000 s");
    }
}
