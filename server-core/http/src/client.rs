//! A small client for this server's own API, for the program's commands that speak with a running one.

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The longest event or answer that is read.
const MAX_BYTES: usize = 64 << 20;

/// Why a call did not come about.
#[derive(Debug)]
pub struct ClientError(String);

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientError {}

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Client {
    host: String,
    port: u16,
    key: Option<String>,
}

/// An answer whose body is still to be read. Dropped before its end, it cancels the call.
pub struct Reply {
    /// The status.
    pub status: u16,
    body: Incoming,
    read: BytesMut,
}

impl Client {
    /// The server at `http://HOST:PORT`; a path behind it, as clients of OpenAI's API have it, does not matter.
    ///
    /// # Errors
    /// The URL is not one of this kind.
    pub fn new(url: &str, key: Option<&str>) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError(format!("'{url}' {why}: give http://HOST:PORT"));
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("is encrypted, which this command does not speak")),
            _ => return Err(wrong("does not begin with http://")),
        }
        let host = uri.host().ok_or_else(|| wrong("names no host"))?.to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), key: key.map(str::to_owned) })
    }

    /// Calls `path`; with a body it is a POST of JSON.
    ///
    /// # Errors
    /// There is no such server, or it does not speak HTTP.
    pub async fn call(&self, path: &str, body: Option<String>) -> Result<Reply, ClientError> {
        let Self { host, port, key } = self;
        let fail = |what: &str, error: &dyn std::fmt::Display| {
            ClientError(format!("http://{host}:{port} {what}: {error}"))
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, *port)).await.map_err(|e| fail("cannot be reached", &e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| fail("does not answer", &e))?;
        tokio::spawn(connection);
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(path).header(HOST, format!("{host}:{port}"));
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .body(Full::<bytes::Bytes>::new(body.unwrap_or_default().into()))
            .map_err(|e| fail("cannot be asked", &e))?;
        let answer = sender.send_request(request).await.map_err(|e| fail("does not answer", &e))?;
        Ok(Reply { status: answer.status().as_u16(), body: answer.into_body(), read: BytesMut::new() })
    }
}

impl Reply {
    /// The data of the next server-sent event; none at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn event(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event = self.read.split_to(end + 2);
                let event = String::from_utf8_lossy(&event);
                let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                if !lines.is_empty() {
                    return Ok(Some(lines.join("\n")));
                }
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn text(mut self) -> Result<String, ClientError> {
        while self.more().await? {}
        Ok(String::from_utf8_lossy(&self.read).into_owned())
    }

    async fn more(&mut self) -> Result<bool, ClientError> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| ClientError(format!("the server broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if self.read.len() + data.len() > MAX_BYTES {
                return Err(ClientError(format!("the server sent more than {MAX_BYTES} bytes at once")));
            }
            self.read.extend_from_slice(&data);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_urls_are_taken() {
        let client = Client::new("http://example.com:9000/v1", None).unwrap();
        assert_eq!((client.host.as_str(), client.port), ("example.com", 9000));
        for (url, why) in
            [("https://x", "encrypted"), ("localhost:8000", "http://"), ("", "no URL"), ("/v1", "http://")]
        {
            assert!(Client::new(url, None).unwrap_err().to_string().contains(why), "{url}");
        }
    }
}
