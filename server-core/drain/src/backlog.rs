use std::net::TcpStream;

use tokio::net::TcpListener;

/// The connections that the system has taken and the server has not. When they are all there, nobody listens any more.
pub fn backlog(listener: TcpListener) -> impl Iterator<Item = TcpStream> {
    // It does not wait: that is how tokio has set it up.
    let listener = listener.into_std().ok();
    std::iter::from_fn(move || {
        let (stream, _) = listener.as_ref()?.accept().ok()?;
        let _ = stream.set_nodelay(true);
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net;

    #[tokio::test]
    async fn who_is_connected_is_there_and_who_comes_later_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _clients = [
            net::TcpStream::connect(address).await.unwrap(),
            net::TcpStream::connect(address).await.unwrap(),
        ];
        let mut waiting = backlog(listener);
        assert!(waiting.next().is_some() && waiting.next().is_some() && waiting.next().is_none());
        drop(waiting);
        assert!(net::TcpStream::connect(address).await.is_err());
    }
}
