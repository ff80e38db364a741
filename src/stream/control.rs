//! How others reach the consumer thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A handle on the thread that runs [`consume`](super::consume). Clones are the same handle.
#[derive(Clone, Default)]
pub struct Control(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rejoin: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Control {
    /// A handle on a thread that is yet to start.
    pub fn new() -> Control {
        Control::default()
    }

    /// Asks it to give its partitions back, to leave the group and to end.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Asks it to leave the group and join again: for a commit that found another owner, or whose answer was lost.
    pub fn rejoin(&self) {
        self.0.rejoin.store(true, Ordering::Release);
        self.wake();
    }

    /// Has it look again at once: for a sink that has room again or something to tell.
    pub fn wake(&self) {
        if let Some(thread) = &*self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    /// Makes the calling thread the one that is woken.
    pub(super) fn is_this_thread(&self) {
        *self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
    }

    /// Whether it is to end.
    pub fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Whether a rejoin was asked for, which is then no longer so.
    pub(super) fn take_rejoin(&self) -> bool {
        self.0.rejoin.load(Ordering::Acquire) && self.0.rejoin.swap(false, Ordering::AcqRel)
    }

    /// Sleeps, unless it is to stop.
    pub(super) fn pause(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}
