//! Listening and serving, alike for both servers.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long answers under way may take when the server is told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}; choose another address with {flag}")]
pub struct BindError {
    key: &'static str,
    flag: &'static str,
    address: SocketAddr,
    error: std::io::Error,
}

/// Listens on an address, which a config key and a flag set.
pub async fn bind(key: &'static str, flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { key, flag, address, error })
}

/// Serves until `stop` turns true, then lets the answers under way end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> Result<(), std::io::Error> {
    let mut told = stop.clone();
    let stopped = async move {
        // A sender that is gone means the same.
        let _ = told.wait_for(|stop| *stop).await;
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
    let late = async move {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = late => Ok(()),
    }
}
