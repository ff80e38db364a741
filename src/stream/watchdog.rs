//! Ends the process when a call of librdkafka hangs far beyond its own time limit, which its transactions can do when a
//! broker dies under them: a relay that hangs would keep every other from publishing, a process that ends is restarted.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A thread that watches one call at a time.
pub(super) struct Watchdog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: Option<(&'static str, Instant)>,
    ended: bool,
}

/// A call that is being watched, until this is dropped.
pub(super) struct Watched<'a>(&'a Shared);

impl Watchdog {
    /// Starts one that ends the process.
    pub(super) fn start() -> Watchdog {
        Watchdog::with(|call| {
            tracing::error!("kafka: {call} hangs and cannot be taken back; ending the process so that it is restarted");
            std::process::exit(1);
        })
    }

    fn with(expired: impl Fn(&'static str) + Send + 'static) -> Watchdog {
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        thread::Builder::new()
            .name("kafka-watchdog".into())
            .spawn(move || watching.watch(expired))
            .expect("a thread can be started");
        Watchdog(shared)
    }

    /// Watches a call that must be over after `limit`.
    pub(super) fn watch(&self, call: &'static str, limit: Duration) -> Watched<'_> {
        self.0.lock().watched = Some((call, Instant::now() + limit));
        self.0.changed.notify_one();
        Watched(&self.0)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.lock().watched = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, expired: impl Fn(&'static str)) {
        let mut state = self.lock();
        while !state.ended {
            // A call that is over leaves a late waking behind, which finds nothing to watch.
            let wait = match state.watched {
                None => Duration::MAX,
                Some((call, limit)) => {
                    let left = limit.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.watched = None;
                        expired(call);
                        continue;
                    }
                    left
                }
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_call_beyond_its_limit_is_told_and_one_within_is_not() {
        let (tell, told) = mpsc::channel();
        let watchdog = Watchdog::with(move |call| tell.send(call).unwrap());
        drop(watchdog.watch("short", Duration::from_secs(3600)));
        let hanging = watchdog.watch("hanging", Duration::from_millis(1));
        assert_eq!(told.recv(), Ok("hanging"));
        drop(hanging);
        drop(watchdog);
        // The thread ends, and with it the channel: nothing else was told.
        assert!(told.recv().is_err());
    }
}
