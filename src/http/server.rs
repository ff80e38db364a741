//! Listening and serving, alike for both servers, so that no client can hold a connection for ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Limits;
use super::pace::Paced;

/// How long to wait after a connection could not be accepted.
const BREATH: Duration = Duration::from_millis(50);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}; choose another address with {flag}")]
pub struct BindError {
    key: &'static str,
    flag: &'static str,
    address: SocketAddr,
    error: std::io::Error,
}

/// How much of an answer the system takes for a client that does not read it yet; Linux doubles it, for what it needs itself.
/// By default that is megabytes: whole pages, and a client that is slow is not seen to be (`pace`).
const SEND_BUFFER: u32 = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on an address, which a config key and a flag set.
pub async fn bind(key: &'static str, flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| BindError { key, flag, address, error })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` turns true, then lets the answers under way end for so long.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    limits: Limits,
    farewell: Duration,
) -> Result<(), std::io::Error> {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let told = stop.clone();
    loop {
        let accepting = async {
            // The semaphore is never closed.
            let place = room.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepting => match accepted {
                Ok((stream, _)) => {
                    let connected = connection(stream, router.clone(), told.clone(), limits);
                    connections.spawn(async move {
                        connected.await;
                        drop(place);
                    });
                }
                // A client that is gone again, or no more file descriptors, which passes.
                Err(_) => tokio::time::sleep(BREATH).await,
            },
        }
    }
    let ending = async { while connections.join_next().await.is_some() {} };
    // Who is not done by then is cut off with the set.
    let _ = tokio::time::timeout(farewell, ending).await;
    Ok(())
}

/// Waits until it is told to end; a sender that is gone means the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One connection, from its first request to its end.
async fn connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>, limits: Limits) {
    // An answer is written at once; waiting for more of it only costs time.
    let _ = stream.set_nodelay(true);
    let stream = Paced::new(stream, limits.write_time);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        // What is only somewhat too large is refused in words; beyond that no more is read.
        .max_buf_size(2 * limits.head_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // What a client does wrong to its own connection is no news.
        _ = serving.as_mut() => return,
        () = stopped(&mut stop) => {}
        () = tokio::time::sleep(limits.connection_time) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.write_time, serving).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Duration = Duration::from_millis(200);
    /// Long enough for any machine; a test that waits for so long has failed.
    const LONG: Duration = Duration::from_secs(20);

    async fn served(limits: Limits) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/", get(async || "here").post(async |body: String| body))
            .route("/long", get(async || "x".repeat(64 * 1024 * 1024)));
        let (stop, end) = watch::channel(false);
        tokio::spawn(serve(listener, router, end, limits, LONG));
        (address, stop)
    }

    /// What comes back for this until the server closes the connection.
    async fn told(address: SocketAddr, sent: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("written");
        let mut text = Vec::new();
        let reading = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await;
        // A connection that is cut off while something unread lies in it ends by a reset.
        let _ = reading.expect("the connection is closed in time");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_slow_sender_is_cut_off() {
        let (address, _stop) = served(Limits { head_time: SHORT, ..Limits::default() }).await;
        assert!(!told(address, "").await.contains("here"));
        assert!(!told(address, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.contains("here"));
        // Between two requests too.
        assert!(told(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("here"));
    }

    #[tokio::test]
    async fn an_old_connection_ends_whatever_it_does() {
        let (address, _stop) = served(Limits { connection_time: SHORT, write_time: SHORT, ..Limits::default() }).await;
        let slow = told(address, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
        assert_eq!(slow, "");
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_off() {
        let (address, _stop) = served(Limits { write_time: SHORT, connections: 1, ..Limits::default() }).await;
        let mut slow = TcpStream::connect(address).await.expect("a connection");
        slow.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
        // The only place is free again although nothing was read.
        assert!(told(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ends_with("here"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (address, _stop) = served(Limits::default()).await;
        let head =
            format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(4 * Limits::default().head_bytes));
        assert!(!told(address, &head).await.contains("here"));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
        assert!(told(address, &many).await.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn it_ends_when_told_to() {
        let (address, stop) = served(Limits::default()).await;
        let mut idle = TcpStream::connect(address).await.expect("a connection");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
        let mut begin = [0; 8];
        idle.read_exact(&mut begin).await.expect("an answer");
        stop.send_replace(true);
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LONG, idle.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "an idle connection is closed");
    }
}
