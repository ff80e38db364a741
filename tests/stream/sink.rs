//! A sink that writes down what it is given, and holds it to what the consumer promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headroom::stream::{Control, Gap, Input, Notices, Options, Sink, Start, StreamError, Taken, consume};
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

/// Long enough for the slowest machine; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What several consumers share: the positions, as a store would keep them, and what came.
#[derive(Default)]
pub(crate) struct Seen {
    /// The next offset of each partition and input; absent is 0.
    pub(crate) next: BTreeMap<(i32, Input), i64>,
    /// Which consumer has a partition.
    pub(crate) owner: BTreeMap<i32, &'static str>,
    pub(crate) at_end: BTreeMap<(i32, Input), i64>,
    /// How many times each consumer was given partitions.
    pub(crate) assignments: BTreeMap<&'static str, usize>,
    pub(crate) records: usize,
    /// How many rounds brought some.
    pub(crate) rounds: usize,
    /// How many more assignments are refused.
    pub(crate) refuse: usize,
    /// What is taken of usage; `None`: all.
    pub(crate) usage_room: Option<usize>,
    /// Whether each record fills its batch.
    pub(crate) each_fills: bool,
    /// Positions that were not there; there is no room for their partitions.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) away: Vec<String>,
    pub(crate) back: usize,
    changed: bool,
}

impl Seen {
    pub(crate) fn next(&self, partition: i32, input: Input) -> i64 {
        self.next.get(&(partition, input)).copied().unwrap_or(0)
    }

    pub(crate) fn owned(&self, name: &str) -> usize {
        self.owner.values().filter(|owner| **owner == name).count()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<(Mutex<Seen>, Condvar)>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.lock();
        while !so(&seen) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain until {what}");
            seen = self.0.1.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Notices for Shared {
    fn broker_away(&self, why: &str) {
        self.change(|seen| seen.away.push(why.to_owned()));
    }

    fn broker_back(&self) {
        self.change(|seen| seen.back += 1);
    }
}

struct Probe {
    name: &'static str,
    shared: Shared,
    /// Partitions that got records since Kafka was last told.
    moved: BTreeSet<i32>,
    /// What is full until the next round.
    full: BTreeSet<(i32, Input)>,
}

impl Sink for Probe {
    fn assigned(&mut self, partitions: &[i32]) -> Result<Vec<Start>, String> {
        let mut seen = self.shared.lock();
        if seen.refuse > 0 {
            seen.refuse -= 1;
            return Err("refused by the test".into());
        }
        *seen.assignments.entry(self.name).or_default() += 1;
        for partition in partitions {
            let before = seen.owner.insert(*partition, self.name);
            assert_eq!(before, None, "partition {partition} was not given back first");
        }
        let starts = partitions
            .iter()
            .map(|&partition| Start {
                partition,
                usage: seen.next(partition, Input::Usage),
                assignments: seen.next(partition, Input::Assignments),
            })
            .collect();
        self.shared.0.1.notify_all();
        Ok(starts)
    }

    fn revoked(&mut self, partitions: &[i32]) {
        self.shared.change(|seen| {
            seen.owner.retain(|partition, owner| !partitions.contains(partition) || *owner != self.name)
        });
    }

    fn room(&self, partition: i32, input: Input) -> usize {
        if self.shared.lock().gaps.iter().any(|gap| gap.partition == partition) {
            return 0;
        }
        match input {
            Input::Usage => self.shared.lock().usage_room.unwrap_or(usize::MAX),
            Input::Assignments => usize::MAX,
        }
    }

    fn record(&mut self, input: Input, message: &BorrowedMessage<'_>) -> Taken {
        let mut seen = self.shared.lock();
        let partition = message.partition();
        assert!(!self.full.contains(&(partition, input)), "a record where there is no room for another");
        assert_eq!(seen.owner.get(&partition), Some(&self.name), "a record of a partition of another");
        let next = seen.next(partition, input);
        assert!(message.offset() >= next, "{input:?} {partition}: {} after {next}", message.offset());
        // Plain records leave no gaps.
        if let Some(place) = message.payload().and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok()) {
            assert_eq!(place, next, "{input:?} {partition}: not the next record");
        }
        seen.next.insert((partition, input), message.offset() + 1);
        seen.records += 1;
        self.moved.insert(partition);
        seen.changed = true;
        if seen.each_fills {
            self.full.insert((partition, input));
        }
        Taken { begins: false, fills: seen.each_fills }
    }

    fn at_end(&mut self, partition: i32, input: Input, offset: i64) {
        self.shared.change(|seen| {
            seen.at_end.insert((partition, input), offset);
        });
    }

    fn gap(&mut self, gap: Gap) {
        self.shared.change(|seen| seen.gaps.push(gap));
    }

    fn unreadable(&mut self, partition: i32, input: Input, why: Option<String>) {
        panic!("{input:?} {partition}: nothing damages records here: {why:?}");
    }

    fn round(&mut self) {
        self.full.clear();
        let mut seen = self.shared.lock();
        if std::mem::take(&mut seen.changed) {
            seen.rounds += 1;
            self.shared.0.1.notify_all();
        }
    }

    fn committed(&mut self) -> Vec<Start> {
        let seen = self.shared.lock();
        let start = |partition| Start {
            partition,
            usage: seen.next(partition, Input::Usage),
            assignments: seen.next(partition, Input::Assignments),
        };
        std::mem::take(&mut self.moved).into_iter().map(start).collect()
    }
}

/// A consumer on its own thread.
pub(crate) struct Consumer {
    pub(crate) control: Control,
    thread: JoinHandle<Result<(), StreamError>>,
}

impl Consumer {
    pub(crate) fn start(name: &'static str, options: &Options, shared: &Shared) -> Consumer {
        let control = Control::new();
        let (options, shared, its) = (options.clone(), shared.clone(), control.clone());
        let thread = std::thread::spawn(move || {
            let notices: Arc<dyn Notices> = Arc::new(shared.clone());
            consume(&options, 4, Probe { name, shared, moved: BTreeSet::new(), full: BTreeSet::new() }, &its, &notices)
        });
        Consumer { control, thread }
    }

    pub(crate) fn stop(self) -> Result<(), StreamError> {
        self.control.stop();
        self.end()
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(self) -> Result<(), StreamError> {
        let end = Instant::now() + PATIENCE;
        while !self.thread.is_finished() {
            assert!(Instant::now() < end, "waited in vain until the consumer ends");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.thread.join().unwrap()
    }
}
