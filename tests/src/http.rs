//! The plainest HTTP client: what is sent and received is what stands here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Posts JSON and reads JSON: the status and the body.
///
/// # Errors
/// The server does not answer, or not in HTTP and JSON.
pub fn post(to: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value)> {
    exchange(to, "POST", path, &body.to_string())
}

/// Reads JSON: the status and the body.
///
/// # Errors
/// The server does not answer, or not in HTTP and JSON.
pub fn get(to: SocketAddr, path: &str) -> Result<(u16, Value)> {
    exchange(to, "GET", path, "")
}

fn exchange(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("no end of head: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status: {head:?}"))?;
    Ok((status, serde_json::from_str(body).with_context(|| format!("not JSON: {answer:?}"))?))
}
