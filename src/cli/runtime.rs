//! The async runtime of a command.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long threads may take that the work left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Runs a command's work to its end.
pub(super) fn block_on<F: Future>(work: F) -> Result<F::Output, anyhow::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let result = runtime.block_on(work);
    // A thread that still waits for a broker or a store must not keep the process.
    runtime.shutdown_timeout(LEFT_BEHIND);
    Ok(result)
}

/// Turns true at the first SIGTERM or SIGINT; the second one ends the process at once.
pub(super) fn stop_signal() -> Result<watch::Receiver<bool>, anyhow::Error> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                eprintln!("headroom: a second signal: ending at once");
                std::process::exit(1);
            }
            // Whoever waited has ended already then.
            let _ = told.send(true);
        }
    });
    Ok(stop)
}
