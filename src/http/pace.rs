//! A connection whose client has to take in what is written for it at some pace, so that one that takes it byte by byte holds
//! its place no longer than one that takes nothing.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a client takes in, if it keeps the pace, before it was waited for longer than it may be.
pub(super) const PACE: usize = 256 << 10;

/// A stream that fails once its client falls behind. Only time that is spent waiting for the client counts.
pub(super) struct Paced<S> {
    stream: S,
    /// How long is waited for each `PACE`.
    patience: Duration,
    /// Taken in since the last time that the pace was kept, ...
    taken: usize,
    /// ... and waited for since then, but for the wait under way.
    waited: Duration,
    /// When the wait under way began, and what ends it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Paced<S> {
        Paced { stream, patience, taken: 0, waited: Duration::ZERO, waiting: None }
    }

    /// Passes on how a write went, unless the client is behind.
    fn passed(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            self.taken += written.as_ref().map_or(0, |bytes| *bytes);
            if self.taken >= PACE {
                (self.taken, self.waited) = (self.taken % PACE, Duration::ZERO);
            }
            return Poll::Ready(written);
        }
        let left = self.patience.saturating_sub(self.waited);
        let begin = || {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        };
        ready!(self.waiting.get_or_insert_with(begin).1.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.passed(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.passed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Whether a client that takes so many bytes each time gets ten times the pace, and after how long that is known.
    async fn taken(bytes: usize, each: Duration) -> (bool, Duration) {
        let (server, mut client) = duplex(64);
        let begun = Instant::now();
        let taking = tokio::spawn(async move {
            let mut buffer = vec![0; bytes];
            loop {
                tokio::time::sleep(each).await;
                if client.read_exact(&mut buffer).await.is_err() {
                    return;
                }
            }
        });
        let written = Paced::new(server, PATIENCE).write_all(&vec![0; 10 * PACE]).await;
        let known = begun.elapsed();
        taking.abort();
        (written.is_ok(), known)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_but_not_slower_than_the_pace() {
        let second = Duration::from_secs(1);
        assert!(taken(PACE / 25, second).await.0, "somewhat more than the pace");
        assert!(taken(PACE, 29 * second).await.0, "a long wait each time, and then enough");
        let (is_all, known) = taken(PACE / 35, second).await;
        assert!(!is_all && known < 40 * second, "somewhat less than the pace: known after {known:?}");
        let (is_all, known) = taken(1, second / 4).await;
        assert!(!is_all && known < 31 * second, "four bytes a second: known after {known:?}");
        let (is_all, known) = taken(1, 1_000 * second).await;
        assert!(!is_all && known < 31 * second, "nothing: known after {known:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_is_written_does_not_count() {
        let (server, mut client) = duplex(64);
        let mut server = Paced::new(server, PATIENCE);
        let mut buffer = [0; 64];
        for _ in 0..20 {
            server.write_all(&[0; 64]).await.expect("there is room");
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.read_exact(&mut buffer).await.expect("it was written");
        }
    }
}
