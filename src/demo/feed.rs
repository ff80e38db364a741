//! Sends the demo's events, at its pace, and never more than the broker inside keeps.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Line;
use crate::config::Config;
use crate::stream::StreamError;
use crate::stream::feeder::{Feed, Feeder};
use crate::telemetry::metrics::PrometheusHandle;

/// The broker inside keeps 5 MiB of each partition; records on their way stay below.
const ON_THEIR_WAY: usize = 2 << 20;
/// And no more than this many.
const RECORDS_ON_THEIR_WAY: u64 = 5_000;

/// How fast to play.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// All usage within this time, by its timestamps; reference facts at once.
    Within(Duration),
    /// As fast as it is taken in.
    AsFastAsItGoes,
}

/// Events being sent by a thread.
pub(super) struct Feeding {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    /// The timestamp of the last usage sent, in milliseconds; 0 before the first.
    timestamp: AtomicI64,
    done: AtomicBool,
    fault: Mutex<Option<String>>,
}

impl Feeding {
    /// Begins to send, until all is sent or `over` is set.
    pub(super) fn start(
        config: &Config,
        partitions: i32,
        lines: Vec<Line>,
        pace: Pace,
        handle: PrometheusHandle,
        over: Arc<AtomicBool>,
    ) -> Result<Feeding, StreamError> {
        let servers = config.kafka.bootstrap_servers.as_ref().map(|servers| servers.to_string()).unwrap_or_default();
        let feeder = Feeder::new(&servers)?;
        let topics = [config.topics.assignments.to_string(), config.topics.usage.to_string()];
        let partitioner = config.kafka.partitioner;
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut throttle = Throttle { handle, over, largest: 1, sent: 0, applied: 0 };
            let mut clock = Clock::new(&lines, pace);
            for line in &lines {
                // A story begins when the scene is set: the worker is there and knows the customers.
                if clock.is_before_the_first(line) && !throttle.wait_for_all() {
                    return;
                }
                if !clock.wait(line, &throttle.over) || !throttle.wait(line) {
                    return;
                }
                let feed = Feed {
                    topic: &topics[usize::from(line.is_usage)],
                    partition: partitioner.partition(line.key.as_bytes(), partitions),
                    key: &line.key,
                    value: line.value.as_deref(),
                    timestamp: line.timestamp,
                };
                if let Err(error) = feeder.send(&feed) {
                    *of_thread.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    return;
                }
                of_thread.sent.store(throttle.sent, Ordering::Relaxed);
                if line.is_usage {
                    of_thread.timestamp.store(line.timestamp, Ordering::Relaxed);
                }
            }
            if let Err(error) = feeder.flush() {
                *of_thread.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            of_thread.done.store(true, Ordering::Relaxed);
        });
        Ok(Feeding { shared, thread: Some(thread) })
    }

    /// Waits until its thread has ended, after `over` is set: the broker must outlive it.
    pub(super) fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("sending ended with a panic");
        }
    }

    /// How many records were sent.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Whether all were.
    pub(super) fn is_done(&self) -> bool {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Why it ended early, if it did.
    pub(super) fn fault(&self) -> Option<String> {
        self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the story is: the timestamp of the last usage sent.
    pub(super) fn instant(&self) -> Option<crate::domain::Instant> {
        let milliseconds = self.shared.timestamp.load(Ordering::Relaxed);
        (milliseconds != 0).then(|| crate::domain::Instant::from_micros(milliseconds * 1_000))
    }
}

/// Holds back what would push a record out of the broker before it is applied.
struct Throttle {
    handle: PrometheusHandle,
    over: Arc<AtomicBool>,
    /// The size of the largest record so far.
    largest: usize,
    sent: u64,
    /// Of these, at least so many are applied.
    applied: u64,
}

impl Throttle {
    /// Waits until this line may go; false when the demo is over.
    fn wait(&mut self, line: &Line) -> bool {
        let size = line.key.len() + line.value.as_ref().map_or(0, String::len) + 200;
        self.largest = self.largest.max(size);
        let room = u64::try_from(ON_THEIR_WAY / self.largest).unwrap_or(1).clamp(1, RECORDS_ON_THEIR_WAY);
        while self.sent - self.applied >= room {
            self.applied = applied(&self.handle).min(self.sent);
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            if self.sent - self.applied >= room {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.sent += 1;
        true
    }

    /// Waits until all that was sent is applied; false when the demo is over.
    fn wait_for_all(&mut self) -> bool {
        while applied(&self.handle) < self.sent {
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Turns timestamps into a time to send.
struct Clock {
    begun: Option<Instant>,
    /// The first and the last timestamp of usage, and the time for all of it.
    span: Option<(i64, i64, Duration)>,
}

impl Clock {
    fn new(lines: &[Line], pace: Pace) -> Clock {
        let usage = || lines.iter().filter(|line| line.is_usage).map(|line| line.timestamp);
        let span = match pace {
            Pace::AsFastAsItGoes => None,
            Pace::Within(time) => usage().min().zip(usage().max()).map(|(first, last)| (first, last, time)),
        };
        Clock { begun: None, span }
    }

    /// Whether this line starts the clock.
    fn is_before_the_first(&self, line: &Line) -> bool {
        self.span.is_some() && self.begun.is_none() && line.is_usage
    }

    /// Waits until this line is due; false when the demo is over.
    fn wait(&mut self, line: &Line, over: &AtomicBool) -> bool {
        let Some((first, last, time)) = self.span.filter(|_| line.is_usage) else { return true };
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let whole = u128::from(last.abs_diff(first)).max(1);
        let nanoseconds = time.as_nanos() * u128::from(line.timestamp.abs_diff(first)) / whole;
        let due = begun + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        while Instant::now() < due {
            if over.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        true
    }
}

/// How many records are applied, as the metrics tell.
pub(super) fn applied(handle: &PrometheusHandle) -> u64 {
    sum(handle, "headroom_records_total{")
}

/// The sum of the series whose line begins so.
pub(super) fn sum(handle: &PrometheusHandle, prefix: &str) -> u64 {
    let text = handle.render();
    let of_series = text.lines().filter(|line| line.starts_with(prefix));
    of_series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
