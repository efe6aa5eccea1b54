//! Connections: accepted, served and, at the end, drained.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;
use trireme_drain::{Debt, Settling, Stage, Wire, backlog};
use trireme_protocol::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use trireme_protocol::proto::health::health_server::{HealthServer, SERVICE_NAME as HEALTH};
use trireme_runtime::Core;

use crate::access::permits;
use crate::connection::{self, Age};
use crate::deadline::{Deadline, deadline_exceeded};
use crate::health::Readiness;
use crate::infer;
use crate::options::GrpcOptions;
use crate::pace::Paced;
use crate::reply::Reply;
use crate::service::Service;

/// How much a client may send ahead on a stream and on a connection. A tensor of a few MiB needs no round trip;
/// what is received and not yet read is bounded by it.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Small on purpose. A frame is read into a buffer of its own: with frames of 1 MiB those buffers, and what the allocator
/// keeps of them, take 22 to 30 MiB beside a tensor of 64 MiB, with frames of 64 KiB 8 to 10.
const MAX_FRAME: u32 = 64 << 10;
const MAX_STREAMS: u32 = 4096;
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, as when all file descriptors are used.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the core over gRPC until the end has come. From [`Stage::Leaving`] on connections take no more calls, and
/// running ones finish.
///
/// # Errors
/// The listener has no local address any more. What fails on one connection ends that connection only.
pub async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    options: GrpcOptions,
    end: watch::Receiver<Stage>,
) -> io::Result<()> {
    listener.local_addr()?;
    let threads = options.threads.clone();
    let builder = Arc::new(connections(&options));
    let tls = options.tls.clone().map(|tls| TlsAcceptor::from(tls.0));
    let age = Age { limit: options.max_connection_age, grace: options.max_connection_age_grace };
    let calls = Arc::new(Calls::new(core, options));
    // Every connection holds a sender; when all are gone, so are the connections.
    let (running, mut ended) = mpsc::channel::<()>(1);
    let mut threads = threads.iter().cycle();
    let mut closed = std::pin::pin!(Stage::Closed.reached(end.clone()));
    let mut open = |stream: std::net::TcpStream| {
        let (calls, builder, running) = (Arc::clone(&calls), Arc::clone(&builder), running.clone());
        let (end, tls) = (end.clone(), tls.clone());
        let told = end.borrow().last_of_connection().reached(end.clone());
        let connection = async move {
            let _running = running;
            // Made where it is served, so that its events arrive there.
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!("a connection cannot be served: {error}"),
            };
            let ended = match tls {
                None => serve_one(&builder, calls, stream, age, told).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_one(&builder, calls, stream, age, told).await,
                    Ok(Err(error)) => return tracing::debug!("no TLS with a client: {error}"),
                    Err(_) => return tracing::debug!("a client took too long for TLS"),
                },
            };
            if let Err(error) = ended {
                tracing::debug!("connection ended: {error}");
            }
        };
        match threads.next() {
            Some(thread) => drop(thread.spawn(connection)),
            None => drop(tokio::spawn(connection)),
        }
    };
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

/// Streams: they may be open for ever, and owe only what is on them.
const STREAMS: [&str; 2] =
    ["/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.health.v1.Health/Watch"];

/// The method of which a call has many messages.
const MANY_REQUESTS: &str = "ModelStreamInfer";

/// Serves a connection from its first byte after the handshake, if there was one.
async fn serve_one<S>(
    builder: &http2::Builder<TokioExecutor>,
    calls: Arc<Calls>,
    stream: S,
    age: Age,
    told: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Wire::new(stream, &calls.options.debts);
    let service = service_fn(move |request| {
        let calls = Arc::clone(&calls);
        async move { calls.answer(request).await }
    });
    connection::serve(builder.serve_connection(TokioIo::new(stream), service), age, told).await
}

/// The services behind the port.
struct Calls {
    core: Arc<Core>,
    options: GrpcOptions,
    inference: GrpcInferenceServiceServer<Service>,
    /// The same for calls whose messages are compressed.
    inflating: GrpcInferenceServiceServer<Service>,
    health: HealthServer<Readiness>,
}

impl Calls {
    fn new(core: Arc<Core>, options: GrpcOptions) -> Self {
        let health = HealthServer::new(Readiness(Arc::clone(&core)));
        let service = Arc::new(Service::new(Arc::clone(&core), options.clone()));
        let limited = |limit: usize| {
            let server = GrpcInferenceServiceServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate);
            if options.compress {
                server
                    .send_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Deflate)
            } else {
                server
            }
        };
        let inference = limited(options.max_message);
        // A few bytes can stand for a thousand times as many: what is inflated has the limit of HTTP's bodies.
        let inflating = limited(options.max_message.min(core.limits().max_body));
        Self { core, options, inference, inflating, health }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Settling<Reply>>, Infallible> {
        let mut debt = None;
        let answer = self.answer_or_refuse(request, &mut debt).await?;
        Ok(answer.map(|reply| Settling::new(reply, &self.options.debts, debt)))
    }

    async fn answer_or_refuse(
        &self,
        mut request: Request<Incoming>,
        debt: &mut Option<Debt>,
    ) -> Result<Response<Reply>, Infallible> {
        tracing::debug!("{}", request.uri().path());
        let refuse = |status: Status| Ok(status.into_http::<tonic::body::Body>().map(Reply::Tonic));
        let deadline = match Deadline::of(request.headers()) {
            Ok(None) => return self.answer_in_time(request, debt).await,
            Ok(Some(deadline)) => deadline,
            Err(status) => return refuse(status),
        };
        request.extensions_mut().insert(deadline);
        // Who gives up the call drops it, which cancels what it has begun.
        match tokio::time::timeout_at(deadline.0, self.answer_in_time(request, debt)).await {
            Ok(answer) => answer,
            Err(_) => refuse(deadline_exceeded()),
        }
    }

    async fn answer_in_time(
        &self,
        request: Request<Incoming>,
        debt: &mut Option<Debt>,
    ) -> Result<Response<Reply>, Infallible> {
        if let Err(status) = permits(&self.options.restrictions, &request) {
            return Ok(status.into_http::<tonic::body::Body>().map(Reply::Tonic));
        }
        if !self.options.compress && infer::is_plain(&request) {
            return Ok(infer::answer(&self.core, request.map(Paced::new), &self.options, debt).await);
        }
        if !STREAMS.contains(&request.uri().path()) {
            *debt = Some(self.options.debts.open());
        }
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        // What is no call of either service is answered UNIMPLEMENTED by the first.
        let answer = match service {
            Some((HEALTH, _)) => self.health.clone().call(request.map(Paced::new)).await?,
            // Its client sends messages when it likes.
            Some((_, MANY_REQUESTS)) => self.inferring(&request).call(request).await?,
            _ => self.inferring(&request).call(request.map(Paced::new)).await?,
        };
        Ok(answer.map(Reply::Tonic))
    }

    /// The service whose limits are those of a call.
    fn inferring<B>(&self, request: &Request<B>) -> GrpcInferenceServiceServer<Service> {
        let service = if infer::is_compressed(request) { &self.inflating } else { &self.inference };
        service.clone()
    }
}

fn connections(options: &GrpcOptions) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(1 << 20)
        .keep_alive_interval(options.keepalive_time)
        .keep_alive_timeout(options.keepalive_timeout);
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
    use tokio::time::Instant;
    use trireme_runtime::{CoreOptions, LogLevel};
    use trireme_telemetry::Registry;

    /// A frame of HTTP/2: its length, kind, flags and stream, then what is in it.
    fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
    }

    /// The beginning of a call: a preface, settings, and the headers as texts that are not indexed.
    fn call(path: &str) -> Vec<u8> {
        let mut headers = vec![0x83, 0x86];
        let more =
            [(":path", path), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in more {
            headers.push(0);
            for text in [name, value] {
                headers.push(text.len() as u8);
                headers.extend_from_slice(text.as_bytes());
            }
        }
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &frame(1, 4, 1, &headers)].concat()
    }

    /// `grpc-status` 4, DEADLINE_EXCEEDED, as HPACK writes it: both texts in Huffman's code.
    const TOO_LATE: &[u8] = b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x6b";

    /// Sends a byte of one message every ten seconds, and says after how long the call has ended and what its last headers were.
    async fn drip(path: &str) -> Option<(Duration, Vec<u8>)> {
        let registry = Box::leak(Box::new(Registry::new(false)));
        let core = Core::start(CoreOptions::default(), registry, LogLevel::ERROR).unwrap();
        let options = GrpcOptions::default();
        let (builder, calls) = (connections(&options), Arc::new(Calls::new(core, options)));
        let (mut client, server) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let age = Age { limit: None, grace: None };
            serve_one(&builder, calls, server, age, std::future::pending()).await
        });
        let begun = Instant::now();
        client.write_all(&call(path)).await.unwrap();
        client.write_all(&frame(0, 0, 1, &[0, 0, 1, 0, 0])).await.unwrap();
        let mut received = Vec::new();
        while begun.elapsed() < Duration::from_secs(1000) {
            client.write_all(&frame(0, 0, 1, &[0])).await.unwrap();
            let wait = Instant::now() + Duration::from_secs(10);
            while let Ok(read) = tokio::time::timeout_at(wait, client.read_buf(&mut received)).await {
                assert_ne!(read.unwrap(), 0);
            }
            let mut rest = &received[..];
            while let [a, b, c, kind, flags, _, _, _, stream, ..] = *rest {
                let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                let Some(content) = rest.get(9..end) else { break };
                // A reset, or headers that are the end.
                if stream == 1 && (kind == 3 || kind == 1 && flags & 1 == 1) {
                    return Some((begun.elapsed(), content.to_vec()));
                }
                rest = &rest[end..];
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_drips_is_given_up_and_a_stream_may() {
        let methods = ["ModelInfer", "ServerLive", "ModelConfig"];
        let paths = methods.map(|method| format!("/inference.GRPCInferenceService/{method}"));
        for path in paths.iter().map(String::as_str).chain(["/grpc.health.v1.Health/Check"]) {
            let (time, headers) = drip(path).await.unwrap();
            assert!((70..90).contains(&time.as_secs()), "{path}: {time:?}");
            assert!(headers.windows(TOO_LATE.len()).any(|part| part == TOO_LATE), "{path}: {headers:x?}");
        }
        assert_eq!(drip("/inference.GRPCInferenceService/ModelStreamInfer").await, None);
    }
}
