#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::mpsc;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What is forwarded of a head that was read in pieces of `size` bytes, beside what httparse makes of it.
fn both(sent: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let heads = Heads::default();
    sent.chunks(size).for_each(|piece| heads.read(piece));
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(sent).unwrap();
    let mut request =
        Request::builder().method(parsed.method.unwrap()).uri(parsed.path.unwrap()).body(()).unwrap();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).unwrap());
    }
    let raw = heads.take(&request).unwrap();
    request.extensions_mut().insert(raw);
    let trimmed = request.headers().iter().map(|(_, value)| value.as_bytes().to_vec()).collect();
    let forwarded = forwarded(&request.into_parts().0, Some(&Regex::new("").unwrap()));
    (forwarded.into_iter().map(|(_, value)| value.as_bytes().to_vec()).collect(), trimmed)
}

proptest! {
    /// Values with blanks before and behind, some under one name, in any pieces, with either end of a line.
    #[test]
    fn values_are_as_sent_and_as_parsed_but_for_blanks_behind(
        headers in prop::collection::vec(
            ("[aA]|[b-dB-D]{1,3}|x-[a-z]{1,8}", "[ \t]{0,3}", "([!-~\u{80}-\u{ff}]([ -~\t]{0,12}[!-~])?)?", "[ \t]{0,3}"), 0..12),
        path in "/[a-z0-9/?=&%]{0,12}",
        (empty, ends) in ("(\r\n|\n){0,2}", "\r\n|\n"),
        body in "[ -~\r\n]{0,40}",
        size in 1..200usize,
    ) {
        let mut sent = format!("{empty}POST {path} HTTP/1.1{ends}").into_bytes();
        let mut map: HeaderMap<String> = HeaderMap::default();
        for (name, before, value, behind) in &headers {
            sent.extend_from_slice(format!("{name}:{before}{value}{behind}{ends}").as_bytes());
            // Of a value of blanks alone none is behind it.
            let whole = if value.is_empty() { String::new() } else { format!("{value}{behind}") };
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), whole);
        }
        sent.extend_from_slice(format!("{ends}{body}").as_bytes());
        let (forwarded, parsed) = both(&sent, size);
        let wanted: Vec<Vec<u8>> = map.iter().map(|(_, value)| value.clone().into_bytes()).collect();
        prop_assert_eq!(&forwarded, &wanted);
        for (sent, parsed) in forwarded.iter().zip(&parsed) {
            let rest = sent.strip_prefix(&parsed[..]).unwrap();
            prop_assert!(rest.iter().all(|byte| b" \t".contains(byte)));
        }
    }

    /// Whatever the client sends, a value is hyper's but for blanks behind it.
    #[test]
    fn a_head_that_is_another_one_changes_no_value(sent in prop::collection::vec(any::<u8>(), 0..200), value in "[a-c]{0,3}") {
        let heads = Heads::default();
        heads.read(b"GET / HTTP/1.1\r\na:");
        heads.read(&sent);
        heads.read(b"\r\n\r\n");
        let mut request = Request::builder().uri("/").header("a", &value).body(()).unwrap();
        if let Some(raw) = heads.take(&request) {
            request.extensions_mut().insert(raw);
        }
        let given = forwarded(&request.into_parts().0, Some(&Regex::new("a").unwrap()));
        let rest = given[0].1.as_bytes().strip_prefix(value.as_bytes()).unwrap();
        prop_assert!(rest.iter().all(|byte| b" \t".contains(byte)));
    }
}

/// What a server forwards of the header `a` of each request, on one connection that hyper serves.
async fn serve(mut server_reads: impl AsyncFnMut(&mut tokio::io::DuplexStream)) -> Vec<String> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (given, taken) = mpsc::channel();
    let heads = Heads::default();
    let stream = TokioIo::new(Watched::new(server, Some(heads.clone())));
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(raw) = heads.take(&request) {
            request.extensions_mut().insert(raw);
        }
        let given = given.clone();
        async move {
            let (head, body) = request.into_parts();
            body.collect().await.unwrap();
            for (_, value) in forwarded(&head, Some(&Regex::new("^a$").unwrap())) {
                given.send(value.to_str().unwrap().to_owned()).unwrap();
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let served = tokio::spawn(http1::Builder::new().serve_connection(stream, service));
    server_reads(&mut client).await;
    drop(client);
    let _ = served.await.unwrap();
    taken.iter().collect()
}

/// Sends, and waits for the end of an answer's head.
async fn ask(client: &mut tokio::io::DuplexStream, sent: &str) {
    client.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own() {
    let given = serve(async |client| {
        ask(client, "GET / HTTP/1.1\r\nA: one \r\n\r\n").await;
        let body = "a: body ".repeat(20_000);
        ask(client, &format!("POST / HTTP/1.1\r\na: two\t\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
        let long = "x".repeat(3000);
        ask(
            client,
            &format!("GET /?{long} HTTP/1.1\r\nb: {long}\r\na:three  \r\na: four\r\na:five \r\n\r\n"),
        )
        .await;
        ask(client, "POST / HTTP/1.1\r\na: six \r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n").await;
        ask(client, "b").await;
        ask(client, "GET / HTTP/1.1\r\na: seven  \r\n\r\n").await;
    });
    assert_eq!(given.await, ["one ", "two\t", "three  ", "four", "five ", "six ", "seven  "]);
}

#[tokio::test]
async fn a_head_that_is_not_to_be_had_whole_leaves_hypers_values() {
    let given = serve(async |client| {
        // The second is read with the first.
        ask(client, "GET / HTTP/1.1\r\na: one \r\n\r\nGET / HTTP/1.1\r\na: two \r\n\r\n").await;
        ask(client, "").await;
        ask(client, "GET / HTTP/1.1\r\na: three \r\n\r\n").await;
        let long = format!("b: {}\r\n", "x".repeat(9000)).repeat(8);
        ask(client, &format!("GET / HTTP/1.1\r\n{long}a: four \r\n\r\n")).await;
        ask(client, "GET / HTTP/1.1\r\na: five \r\n\r\n").await;
    });
    assert_eq!(given.await, ["one ", "two", "three ", "four", "five "]);
}

#[test]
fn nothing_is_kept_of_http2_and_no_more_than_a_heads_worth_otherwise() {
    let heads = Heads::default();
    heads.read(b"PRI * HTT");
    heads.read(b"P/2.0\r\n\r\nSM\r\n\r\n");
    heads.wrote();
    heads.read(&[b'a'; 100]);
    assert!(matches!(*heads.state(), Coming::Frames));
    let heads = Heads::default();
    (0..100).for_each(|_| heads.read(&[b'a'; 1000]));
    assert!(matches!(&*heads.state(), Coming::Head(kept) if kept.len() == MOST));
}
