//! Between the consumer thread and the partitions' tasks: records become batches, batches find their task.
//!
//! A batch is handed over as soon as its task is idle, and grows while the task is at work: small under light load. Under
//! backlog, when much more usage is known to be there, an idle task waits for it while it comes (`filling`). No more than a
//! fixed number of batches exist at a time, whatever the number of partitions, so memory is bounded and batches stay large. A
//! partition that may not take records has no room, and its records wait with librdkafka, which has limits of its own.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::batch::{Batch, Input};
use super::filling::Filling;
use super::limits::BatchLimits;
use super::partition::{Context, Partition};
use super::task::{Shared, Ticket, Tools, Work, work_guarded};
use crate::events::Record;
use crate::failpoint;
use crate::store::{Gaps, Offsets};
use crate::stream::{self, Ends as TopicEnds, Gap, Sink, Start, Taken};
use crate::telemetry::Reporter;
use crate::telemetry::metrics::PARTITIONS;

/// How long the store may take to give a partition. The group waits for the first one that it does not give, no longer.
const TAKE: Duration = Duration::from_secs(10);
/// How often it looks meanwhile whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long tasks may take to finish what they have in hand when their partitions are taken away.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long it is no news that the group has given no partitions.
const UNASSIGNED: Duration = Duration::from_secs(15);

/// The partition pairs at work, for whoever watches them.
pub(super) type Owned = Arc<Mutex<BTreeMap<i32, Watched>>>;

/// For each input, the offset at which a read_committed reader was at the end, and the next offset given then.
pub(super) type Ends = [Option<(i64, i64)>; 2];

/// A partition pair at work.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) shared: Arc<Shared>,
    /// Whoever watches must not keep the task from ending.
    pub(super) queue: mpsc::WeakSender<Work>,
    pub(super) ends: Arc<Mutex<Ends>>,
}

impl Watched {
    /// Gives work to the task. A full queue means a busy one, and one that is gone has ended; both are told again.
    pub(super) fn give(&self, work: Work) {
        if let Some(queue) = self.queue.upgrade() {
            let _ = queue.try_send(work);
        }
    }
}

/// One partition pair, as the consumer thread sees it.
struct Slot {
    watched: Watched,
    queue: mpsc::Sender<Work>,
    task: JoinHandle<Option<Partition>>,
    open: Batch,
    filling: Filling,
    /// While there are records in it.
    ticket: Option<Ticket>,
    given: [i64; 2],
    /// An end of a topic beyond what was given, with no record before it.
    end: [Option<i64>; 2],
    /// Records of customers behind come first: neither input is read beyond here before both are read to here. What was
    /// applied for all others already keeps its place before what was not, bill runs above all.
    again_until: Option<Offsets>,
    /// Reference facts come first after a start: usage waits until they are read to here.
    facts_until: Option<i64>,
    told: Offsets,
}

impl Slot {
    /// How many records of an input may come as far as their order goes.
    fn in_order(&self, input: Input) -> usize {
        match self.again_until {
            Some(until) => usize::try_from(input.of(until) - self.given[input as usize]).unwrap_or(0),
            None if input == Input::Usage && self.facts_until.is_some() => 0,
            None => usize::MAX,
        }
    }

    /// Notes that both inputs are read again, once they are.
    fn note_read_again(&mut self) {
        let reached = |input: Input, until: Offsets| {
            let at = self.given[input as usize].max(self.end[input as usize].unwrap_or(0));
            at >= input.of(until)
        };
        if self.again_until.is_some_and(|until| [Input::Usage, Input::Assignments].iter().all(|i| reached(*i, until))) {
            self.again_until = None;
        }
    }

    /// Moves the position of an idle partition over what is no record to the ends of its topics: retention may take all
    /// that is before them, and a position that is gone would be told as a gap.
    fn go_on_to_ends(&mut self) {
        let shared = &self.watched.shared;
        if self.end == [None; 2] || shared.in_hand() > 0 {
            return;
        }
        let mut batch = Batch::new(shared.partition);
        let [usage, assignments] = self.given;
        batch.begin_at(Offsets { usage, assignments });
        for input in [Input::Usage, Input::Assignments] {
            if let Some(end) = self.end[input as usize] {
                batch.go_on_to(input, end);
            }
        }
        if hand_over(&self.queue, shared, &mut batch, &mut None).is_ok() {
            for (given, end) in self.given.iter_mut().zip(&mut self.end) {
                *given = end.take().unwrap_or(*given);
            }
        }
    }
}

/// The consumer thread's way to the partitions' tasks.
pub(super) struct Intake {
    pub(super) context: Arc<Context>,
    pub(super) limits: BatchLimits,
    pub(super) stream: stream::Options,
    pub(super) runtime: Handle,
    pub(super) owned: Owned,
    pub(super) tools: Tools,
    /// Says whether the partitions that the group gave could be taken.
    reporter: Reporter,
    slots: BTreeMap<i32, Slot>,
    /// What is known of partitions that others may have now, in case they come back.
    resting: BTreeMap<i32, Partition>,
    /// How many partitions have no batch.
    without: usize,
    /// Since when there is no assignment.
    unassigned: Option<Instant>,
}

impl Intake {
    pub(super) fn new(
        context: Arc<Context>,
        limits: BatchLimits,
        stream: stream::Options,
        owned: Owned,
        tools: Tools,
    ) -> Intake {
        let runtime = Handle::current();
        let reporter = context.health.reporter(PARTITIONS);
        reporter.fault("the group has not given any yet");
        let (slots, resting) = (BTreeMap::new(), BTreeMap::new());
        let (without, unassigned) = (0, None);
        Intake { context, limits, stream, runtime, owned, tools, reporter, slots, resting, without, unassigned }
    }

    /// Takes a partition pair from the store and starts its task.
    fn start(&mut self, partition: i32) -> Result<Start, String> {
        let control = &self.tools.control;
        let told_to_end = async {
            while !control.stopping() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let taking = async {
            tokio::select! {
                biased;
                () = told_to_end => Err("the worker was told to end".to_owned()),
                taken = tokio::time::timeout(TAKE, self.context.store.take(partition)) => match taken {
                    Ok(taken) => taken.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("the store did not answer within {TAKE:?}")),
                },
            }
        };
        let taken = self.runtime.block_on(taking);
        let taken = taken.map_err(|why| format!("partition {partition} cannot be taken: {why}"))?;
        let Offsets { usage, assignments } = taken.read_from();
        let rested = self.resting.remove(&partition).and_then(|mut rested| rested.resume(&taken).then_some(rested));
        let kept = if rested.is_some() { ", with the accounts in memory" } else { "" };
        info!("partition {partition}: taken with epoch {}, from offsets {usage} and {assignments}{kept}", taken.epoch);
        let gaps = taken.gaps;
        let again_until = (taken.read_from() != taken.offsets).then_some(taken.offsets);
        let owned = rested.unwrap_or_else(|| Partition::new(self.context.clone(), partition, taken));
        let shared = Arc::new(Shared::new(&owned));
        self.stop_at_known_gaps(&shared, gaps, Offsets { usage, assignments });
        let (queue, waiting) = mpsc::channel(4);
        let task = self.runtime.spawn(work_guarded(owned, waiting, shared.clone(), self.tools.clone()));
        let watched = Watched { shared, queue: queue.downgrade(), ends: Arc::default() };
        lock(&self.owned).insert(partition, watched.clone());
        let slot = Slot {
            watched,
            queue,
            task,
            open: Batch::new(partition),
            filling: Filling::new(usage, Instant::now()),
            ticket: None,
            given: [usage, assignments],
            end: [None; 2],
            again_until,
            facts_until: None,
            told: Offsets { usage, assignments },
        };
        self.slots.insert(partition, slot);
        Ok(Start { partition, usage, assignments })
    }

    /// Stops at the gaps that the store knows and nobody has accepted.
    fn stop_at_known_gaps(&self, shared: &Shared, gaps: Gaps, next: Offsets) {
        if !gaps.any() {
            return;
        }
        let partition = shared.partition;
        let held = TopicEnds::new(&self.stream)
            .and_then(|ends| Ok((ends.begins(&[partition])?.all()?, ends.of(&[partition])?.all()?)))
            .inspect_err(|error| warn!("partition {partition}: what its topics hold is not known now: {error}"))
            .ok();
        let held = held.as_ref().and_then(|(begins, ends)| Some((begins.first()?, ends.first()?)));
        let of = |gap: bool, input, next, held| {
            let topic = self.stream.topic(input).to_owned();
            gap.then_some(Gap { input, topic, partition, next, held })
        };
        let gaps = [
            of(gaps.usage, stream::Input::Usage, next.usage, held.map(|(b, e)| (b.usage, e.usage))),
            of(
                gaps.assignments,
                stream::Input::Assignments,
                next.assignments,
                held.map(|(b, e)| (b.assignments, e.assignments)),
            ),
        ];
        for gap in gaps.iter().flatten() {
            shared.stop_at(gap, true);
        }
    }

    /// Looks how much there is to read, and tells it as lag. Lets usage wait until the reference facts that are there now are
    /// read: usage that meets its assignments need not be folded again when they come. Balances do not depend on it.
    fn see_ends(&mut self, partitions: &[i32]) {
        let ends = match stream::Ends::new(&self.stream).and_then(|ends| ends.of(partitions)) {
            Ok(told) => {
                if let Some(fault) = told.fault() {
                    warn!("usage does not wait for reference facts {fault}");
                }
                told.starts
            }
            Err(error) => {
                warn!("usage does not wait for reference facts: {error}");
                return;
            }
        };
        for end in ends {
            if let Some(slot) = self.slots.get_mut(&end.partition) {
                slot.watched.shared.note_usage_end(end.usage);
                let [usage, assignments] = slot.given;
                for (input, lag) in
                    [(Input::Usage, end.usage - usage), (Input::Assignments, end.assignments - assignments)]
                {
                    self.tools.metrics.lag(input, end.partition).set(lag.max(0) as f64);
                }
                slot.facts_until = Some(end.assignments).filter(|until| *until > assignments);
            }
        }
    }

    /// Ends the tasks of partitions, side by side, and keeps what they know for the case that the partitions come back.
    fn end(&mut self, partitions: &[i32]) {
        // A task ends when nobody can give it work any more.
        let tasks: Vec<(i32, JoinHandle<Option<Partition>>)> = partitions
            .iter()
            .filter_map(|partition| {
                let slot = self.slots.remove(partition)?;
                lock(&self.owned).remove(partition);
                Some((*partition, slot.task))
            })
            .collect();
        let until = Instant::now() + FAREWELL;
        for (partition, mut task) in tasks {
            match self.runtime.block_on(async { tokio::time::timeout_at(until, &mut task).await }) {
                Ok(Ok(Some(rested))) => {
                    self.resting.insert(partition, rested);
                }
                // It ended by an error or a panic that it has told already.
                Ok(Ok(None) | Err(_)) => {}
                Err(_) => {
                    warn!(
                        "partition {partition}: its batch was not done in {FAREWELL:?}; whoever takes it does it again"
                    );
                    task.abort();
                }
            }
        }
    }

    /// How many more batches may exist now.
    fn batches_left(&self) -> usize {
        self.limits.batches.saturating_sub(self.tools.batches.load(Ordering::Acquire))
    }
}

impl Sink for Intake {
    fn assigned(&mut self, partitions: &[i32]) -> Result<Vec<Start>, String> {
        failpoint::hit("assigned");
        let starts = partitions.iter().map(|partition| self.start(*partition)).collect::<Result<Vec<Start>, _>>();
        let starts = starts.inspect_err(|why| self.reporter.fault(why))?;
        failpoint::hit("taken");
        self.see_ends(partitions);
        self.reporter.ok();
        self.unassigned = None;
        Ok(starts)
    }

    fn revoked(&mut self, partitions: &[i32]) {
        failpoint::hit("revoked");
        self.end(partitions);
        self.unassigned = Some(Instant::now());
    }

    fn room(&self, partition: i32, input: stream::Input) -> usize {
        let Some(slot) = self.slots.get(&partition) else { return 0 };
        let in_order = slot.in_order(Input::from(input));
        if in_order == 0 {
            return 0;
        }
        if slot.watched.shared.stop().is_some() {
            return 0;
        }
        if slot.open.is_empty() {
            // Whoever has two batches already, and may wait with them for something that takes long, leaves half of all to
            // those that have none.
            let left_to_others = self.without.min(self.limits.batches / 2);
            let others = if slot.watched.shared.in_hand() > 1 { left_to_others } else { 0 };
            if self.batches_left() <= others {
                return 0;
            }
        }
        self.limits.room(&slot.open).min(in_order)
    }

    fn record(&mut self, input: stream::Input, message: &BorrowedMessage<'_>) -> Taken {
        let Some(slot) = self.slots.get_mut(&message.partition()) else {
            return Taken { begins: false, fills: true };
        };
        let begins = slot.open.is_empty();
        if begins {
            slot.ticket = Some(Ticket::take(&self.tools.batches));
            slot.open = self.tools.spares.take(message.partition());
            slot.filling.begin(Instant::now());
            let [usage, assignments] = slot.given;
            slot.open.begin_at(Offsets { usage, assignments });
        }
        let input = Input::from(input);
        let mut headers = Vec::new();
        stream::record::for_each_header(message, |name, value| headers.push((name, value)));
        let record = Record {
            partition: message.partition(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: headers.iter().copied(),
        };
        slot.open.push(input, message.offset(), &record, &self.context.rules);
        slot.given[input as usize] = message.offset() + 1;
        slot.end[input as usize] = None;
        if input == Input::Assignments && slot.facts_until.is_some_and(|until| message.offset() + 1 >= until) {
            slot.facts_until = None;
        }
        slot.note_read_again();
        Taken { begins, fills: self.limits.room(&slot.open) == 0 }
    }

    fn at_end(&mut self, partition: i32, input: stream::Input, offset: i64) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let input = Input::from(input);
        if input == Input::Assignments {
            slot.facts_until = None;
        }
        let given = slot.given[input as usize];
        slot.end[input as usize] = Some(offset).filter(|end| *end > given);
        slot.note_read_again();
        lock(&slot.watched.ends)[input as usize] = Some((offset, given));
    }

    fn gap(&mut self, gap: Gap) {
        let Some(slot) = self.slots.get(&gap.partition) else { return };
        slot.watched.shared.stop_at(&gap, false);
    }

    fn unreadable(&mut self, partition: i32, input: stream::Input, why: Option<String>) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let input = Input::from(input);
        if input == Input::Assignments {
            // They may be so for long, and balances do not depend on the order.
            slot.facts_until = None;
        }
        slot.watched.shared.unreadable()[input as usize] = why;
    }

    fn round(&mut self) {
        let now = Instant::now();
        let without = |slot: &&Slot| slot.open.is_empty() && slot.watched.shared.in_hand() == 0;
        self.without = self.slots.values().filter(without).count();
        if self.unassigned.take_if(|since| since.elapsed() > UNASSIGNED).is_some() {
            self.reporter
                .fault("the group has given none for a while; it waits for its coordinator or for other members");
        }
        for slot in self.slots.values_mut() {
            let usage = slot.given[Input::Usage as usize];
            slot.filling.note(usage, now);
            if slot.open.is_empty() {
                slot.go_on_to_ends();
                continue;
            }
            let full = self.limits.room(&slot.open) == 0;
            let in_hand = slot.watched.shared.in_hand();
            // One batch waits behind the one in hand, so that a busy task never idles; it waits until it is full.
            let waits = || slot.filling.waits(slot.watched.shared.usage_to_come(usage), now);
            let is_due = if full { in_hand <= 1 } else { in_hand == 0 && !waits() };
            if is_due {
                match hand_over(&slot.queue, &slot.watched.shared, &mut slot.open, &mut slot.ticket) {
                    // A full queue takes it in a later round.
                    Ok(()) | Err(TrySendError::Full(())) => {}
                    Err(TrySendError::Closed(())) => {
                        // The task has ended by an error; whoever takes the partition reads these records again.
                        slot.open = Batch::new(slot.watched.shared.partition);
                        slot.ticket = None;
                    }
                }
            }
        }
    }

    fn committed(&mut self) -> Vec<Start> {
        let mut moved = Vec::new();
        for (partition, slot) in &mut self.slots {
            let offsets = slot.watched.shared.committed();
            if offsets != slot.told {
                slot.told = offsets;
                moved.push(Start { partition: *partition, usage: offsets.usage, assignments: offsets.assignments });
            }
        }
        moved
    }
}

impl From<stream::Input> for Input {
    fn from(input: stream::Input) -> Input {
        match input {
            stream::Input::Usage => Input::Usage,
            stream::Input::Assignments => Input::Assignments,
        }
    }
}

/// Hands the open batch to its task, or leaves it as it is: tidings of bill runs and repairs go by the same queue, and a
/// task that is busy for seconds lets them fill it.
fn hand_over(
    queue: &mpsc::Sender<Work>,
    shared: &Shared,
    open: &mut Batch,
    ticket: &mut Option<Ticket>,
) -> Result<(), TrySendError<()>> {
    let place = queue.try_reserve()?;
    shared.hand_over();
    place.send(Work::Batch(Box::new(std::mem::replace(open, Batch::new(shared.partition))), ticket.take()));
    Ok(())
}

/// Locks what no panic leaves half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Partitioner, RunFact};
    use crate::events::Rules;

    #[test]
    fn a_batch_waits_while_the_queue_is_full_of_tidings() {
        let (queue, mut waiting) = mpsc::channel(2);
        let shared = Shared::default();
        let mut open = Batch::new(0);
        let rules = Rules {
            partitioner: Partitioner::Murmur2,
            partitions: 1,
            max_future: Duration::ZERO,
            retention: Duration::ZERO,
        };
        let record = Record { partition: 0, timestamp: None, key: None, value: None, headers: std::iter::empty() };
        open.push(Input::Usage, 7, &record, &rules);
        let tidings = || Work::BillRuns(Arc::new(Vec::<RunFact>::new()));
        while queue.try_send(tidings()).is_ok() {}
        assert_eq!(hand_over(&queue, &shared, &mut open, &mut None), Err(TrySendError::Full(())));
        assert_eq!((open.len(), shared.in_hand()), (1, 0), "the batch is not lost");
        assert!(matches!(waiting.try_recv(), Ok(Work::BillRuns(_))));
        assert_eq!(hand_over(&queue, &shared, &mut open, &mut None), Ok(()));
        assert_eq!((open.len(), shared.in_hand()), (0, 1));
        assert!(matches!(waiting.try_recv(), Ok(Work::BillRuns(_))));
        assert!(matches!(waiting.try_recv(), Ok(Work::Batch(batch, _)) if batch.len() == 1));
        drop(waiting);
        assert_eq!(hand_over(&queue, &shared, &mut open, &mut None), Err(TrySendError::Closed(())));
    }
}
