//! The task of one partition pair: batches in, one commit each, one after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant as Clock;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::warn;

use super::batch::{Batch, Input, Parts};
use super::ends::Ends;
use super::intake::lock;
use super::metrics::Metrics;
use super::partition::{Applied, Partition};
use super::spares::Spares;
use super::stop::Stop;
use crate::domain::RunFact;
use crate::store::{CommitError, Offsets, RepairRequest};
use crate::stream::Control;

/// What a partition's task and the consumer thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) partition: i32,
    /// At which it was taken.
    pub(super) epoch: i64,
    /// Ends of its topics that it has yet to come to.
    pub(super) ends: Arc<Ends>,
    /// Where the usage topic ended when it was looked at last: up to there records are sure to come.
    usage_end: AtomicI64,
    /// Why no more records are taken, if so.
    stop: Mutex<Option<Stop>>,
    /// Why none come of an input, if so.
    unreadable: Mutex<[Option<String>; 2]>,
    /// Batches handed over that are not committed yet.
    in_hand: AtomicUsize,
    committed: [AtomicI64; 2],
    /// The next offset of assignment-events, customers behind left out.
    next_fact: AtomicI64,
    /// Usage held and not reversed.
    held: AtomicI64,
    /// Customers behind.
    behind: AtomicUsize,
    /// Steps of catching up taken.
    steps: AtomicU64,
    /// The versions of the bill runs applied, by their ids.
    runs: Mutex<BTreeMap<i64, i64>>,
}

impl Shared {
    pub(super) fn new(partition: &Partition) -> Shared {
        let offsets = partition.offsets();
        let shared = Shared {
            partition: partition.number(),
            epoch: partition.epoch(),
            ends: partition.ends.clone(),
            usage_end: AtomicI64::new(offsets.usage),
            stop: Mutex::default(),
            unreadable: Mutex::default(),
            in_hand: AtomicUsize::new(0),
            committed: [AtomicI64::new(offsets.usage), AtomicI64::new(offsets.assignments)],
            next_fact: AtomicI64::new(0),
            held: AtomicI64::new(0),
            behind: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            runs: Mutex::default(),
        };
        shared.note(partition);
        shared
    }

    /// Why no more records are taken, if so.
    pub(super) fn stop(&self) -> MutexGuard<'_, Option<Stop>> {
        lock(&self.stop)
    }

    /// Why no records come of each input: those that come next are damaged.
    pub(super) fn unreadable(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        lock(&self.unreadable)
    }

    /// Notes where the usage topic ends.
    pub(super) fn note_usage_end(&self, end: i64) {
        self.usage_end.store(end, Ordering::Release);
    }

    /// How many offsets of usage lie between the next one given and where the topic ended when it was looked at last.
    pub(super) fn usage_to_come(&self, given: i64) -> usize {
        usize::try_from(self.usage_end.load(Ordering::Acquire) - given).unwrap_or(0)
    }

    /// How many batches the task has in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Acquire)
    }

    /// Notes that a batch is handed over.
    pub(super) fn hand_over(&self) {
        self.in_hand.fetch_add(1, Ordering::AcqRel);
    }

    /// The next offsets of what is committed.
    pub(super) fn committed(&self) -> Offsets {
        Offsets {
            usage: self.committed[Input::Usage as usize].load(Ordering::Acquire),
            assignments: self.committed[Input::Assignments as usize].load(Ordering::Acquire),
        }
    }

    /// The next offset of assignment-events that no fact but those of customers behind is before.
    pub(super) fn next_fact(&self) -> i64 {
        self.next_fact.load(Ordering::Acquire)
    }

    /// How much usage is held and not reversed.
    pub(super) fn held(&self) -> i64 {
        self.held.load(Ordering::Acquire)
    }

    /// How many steps of catching up were taken: a partition may move by those alone.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Acquire)
    }

    /// How many customers are behind.
    pub(super) fn behind(&self) -> usize {
        self.behind.load(Ordering::Acquire)
    }

    /// How many bill runs, given by their ids with their versions, the partition has yet to bring to that version.
    pub(super) fn runs_to_come(&self, runs: &BTreeMap<i64, i64>) -> i64 {
        let applied = lock(&self.runs);
        let to_come = |(id, version): &(&i64, &i64)| applied.get(id).is_none_or(|applied| applied < version);
        i64::try_from(runs.iter().filter(to_come).count()).unwrap_or(i64::MAX)
    }

    /// Notes what is committed.
    fn note(&self, partition: &Partition) {
        let offsets = partition.offsets();
        self.committed[Input::Usage as usize].store(offsets.usage, Ordering::Release);
        self.committed[Input::Assignments as usize].store(offsets.assignments, Ordering::Release);
        self.next_fact.store(partition.passed().assignments, Ordering::Release);
        self.held.store(partition.totals().held, Ordering::Release);
        self.behind.store(partition.behind(), Ordering::Release);
        let mut runs = lock(&self.runs);
        if !partition.bill_runs().settled().eq(runs.iter().map(|(id, version)| (*id, *version))) {
            *runs = partition.bill_runs().settled().collect();
        }
    }
}

/// Stands for one of the batches that may exist, for as long as the batch does, however it ends.
pub(super) struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    /// Another batch.
    pub(super) fn take(batches: &Arc<AtomicUsize>) -> Ticket {
        batches.fetch_add(1, Ordering::AcqRel);
        Ticket(batches.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a partition's task is given to do.
pub(super) enum Work {
    /// Records, to be committed together.
    Batch(Box<Batch>, Option<Ticket>),
    /// The facts about bill runs of all partitions; those that are news are applied.
    BillRuns(Arc<Vec<RunFact>>),
    /// A repair that was asked for.
    Repair(RepairRequest),
}

/// Why a task ended before it was told to.
#[derive(Debug)]
pub(super) enum TaskEnd {
    /// The partition may be another's: leave the group, join again, and take what it gives.
    Rejoin,
    /// Going on would not help.
    Fatal(String),
}

/// What a partition's task works with, beside the partition itself.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) metrics: Arc<Metrics>,
    /// Told when it ends by an error.
    pub(super) ended: mpsc::UnboundedSender<TaskEnd>,
    /// Told when alerts were raised.
    pub(super) raised: Arc<Notify>,
    /// Told when a bill run came in that other partitions have yet to apply.
    pub(super) bill_runs: Arc<Notify>,
    /// Batches that exist, over all partitions.
    pub(super) batches: Arc<AtomicUsize>,
    /// Those that are done with.
    pub(super) spares: Arc<Spares>,
    /// Woken when there is room for more records.
    pub(super) control: Control,
}

/// [`work`], and what it means when that panics. It takes the process down, else nobody would read the partition any more;
/// but a worker that lost its partition and does not know it yet may read what contradicts what it has in memory. It can
/// commit nothing of it, and leaves the group like any other that is fenced.
pub(super) async fn work_guarded(
    partition: Partition,
    queue: mpsc::Receiver<Work>,
    shared: Arc<Shared>,
    tools: Tools,
) -> Option<Partition> {
    let (context, number, epoch) = (partition.context.clone(), partition.number(), partition.epoch);
    // Ends with this task, and not beside it.
    let mut inner = JoinSet::new();
    inner.spawn(work(partition, queue, shared, tools.clone()));
    let panic = match inner.join_next().await? {
        Ok(rested) => return rested,
        Err(panic) => panic,
    };
    let panicked = format!("partition {number}: its task panicked; the lines above say where: {panic}");
    let end = match context.patiently(|| context.store.progress()).await {
        Ok(progress) if progress.iter().any(|row| row.partition == number && row.epoch != epoch) => {
            warn!("{panicked}; it has another owner, so the group is joined again");
            TaskEnd::Rejoin
        }
        Ok(_) => TaskEnd::Fatal(panicked),
        Err(error) => TaskEnd::Fatal(format!("{panicked}; {error}")),
    };
    // Nobody listens only while the whole worker ends.
    let _ = tools.ended.send(end);
    None
}

/// A partition's task: works until its channel closes, then gives the partition back, with what it knows.
async fn work(
    mut partition: Partition,
    mut queue: mpsc::Receiver<Work>,
    shared: Arc<Shared>,
    tools: Tools,
) -> Option<Partition> {
    // Facts about bill runs among which there may be news.
    let mut told: Arc<Vec<RunFact>> = Arc::default();
    loop {
        // Bill runs of other partitions are applied, rows of a closing one are stored, and customers behind catch up, when
        // there is nothing else to do and after each batch.
        let is_busy = partition.is_storing() || partition.can_catch_up() || !told.is_empty();
        let next = if is_busy { queue.try_recv().map(Some) } else { Ok(queue.recv().await) };
        match next {
            Ok(Some(Work::Batch(batch, ticket))) => {
                if !batch.follows(partition.read()) {
                    // Never seen, and never to be silent: what lies between would be lost.
                    warn!("partition {}: a batch does not follow the one before it", shared.partition);
                    end(CommitError::Fenced(shared.partition), &shared, &tools);
                    return None;
                }
                let mut applied = Some(());
                let mut parts = Parts::of(*batch);
                while let Some(mut part) = partition.next_part(&mut parts) {
                    applied = apply(&mut partition, &mut part, &shared, &tools).await;
                    if applied.is_none() {
                        break;
                    }
                    tools.spares.give(part);
                }
                drop(ticket);
                shared.in_hand.fetch_sub(1, Ordering::AcqRel);
                tools.control.wake();
                applied?;
            }
            // They are told again, and come after all that was applied before them for others.
            Ok(Some(Work::BillRuns(_))) if partition.reads_again() => {}
            Ok(Some(Work::BillRuns(facts))) => told = facts,
            Ok(Some(Work::Repair(request))) => {
                while partition.can_catch_up() {
                    catch_up(&mut partition, &shared, &tools).await?;
                }
                if let Err(error) = partition.repair(&request).await {
                    end(error, &shared, &tools);
                    return None;
                }
                shared.note(&partition);
            }
            Ok(None) | Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {}
        }
        if !told.is_empty() && hear(&mut partition, &told, &shared, &tools).await? {
            told = Arc::default();
        }
        if partition.is_storing()
            && let Err(error) = partition.store_rows().await
        {
            end(error, &shared, &tools);
            return None;
        }
        let until = Clock::now() + partition.context.replay_pause;
        while partition.can_catch_up() {
            catch_up(&mut partition, &shared, &tools).await?;
            if Clock::now() >= until {
                break;
            }
        }
    }
    Some(partition)
}

/// Applies facts about bill runs that are news, for a pause. Whether none is left; `None` when that failed and the task must
/// end.
async fn hear(partition: &mut Partition, told: &[RunFact], shared: &Shared, tools: &Tools) -> Option<bool> {
    let until = Clock::now() + partition.context.replay_pause;
    for mut batch in partition.news(told) {
        if Clock::now() >= until {
            return Some(false);
        }
        apply(partition, &mut batch, shared, tools).await?;
        shared.steps.fetch_add(1, Ordering::AcqRel);
    }
    Some(true)
}

/// Lets a customer behind catch up for a pause, or usage in that a run held; `None` when that failed and the task must end.
async fn catch_up(partition: &mut Partition, shared: &Shared, tools: &Tools) -> Option<()> {
    let began = Clock::now();
    match partition.catch_up().await {
        Ok(caught_up) => {
            if let Some((batch, applied)) = caught_up {
                committed(partition, &batch, &applied, began, tools);
            }
            shared.steps.fetch_add(1, Ordering::AcqRel);
            shared.note(partition);
            Some(())
        }
        Err(error) => {
            end(error, shared, tools);
            None
        }
    }
}

/// Counts what a commit applied, and tells who waits for it.
fn committed(partition: &Partition, batch: &Batch, applied: &Applied, began: Clock, tools: &Tools) {
    if batch.is_empty() && applied.replays == 0 {
        // All of it waits with customers behind, or was applied before; or a fold that another owner left was ended.
        return;
    }
    tools.metrics.committed(batch, applied, began.elapsed(), (partition.context.now)());
    if applied.alerts > 0 {
        tools.raised.notify_one();
    }
    if batch.has_bill_run() {
        tools.bill_runs.notify_one();
    }
}

/// Applies a batch and counts it; `None` when that failed and the task must end.
async fn apply(partition: &mut Partition, batch: &mut Batch, shared: &Shared, tools: &Tools) -> Option<()> {
    while partition.must_catch_up(batch) {
        catch_up(partition, shared, tools).await?;
    }
    let began = Clock::now();
    match partition.apply(batch).await {
        Ok(applied) => {
            committed(partition, batch, &applied, began, tools);
            shared.note(partition);
            Some(())
        }
        Err(error) => {
            end(error, shared, tools);
            None
        }
    }
}

/// Tells why the task ends.
fn end(error: CommitError, shared: &Shared, tools: &Tools) {
    let line = format!("partition {}: {error}", shared.partition);
    let end = match error {
        CommitError::Fenced(_) | CommitError::Unknown(_) => {
            warn!("{line}; leaving the group to join it again");
            TaskEnd::Rejoin
        }
        CommitError::Store(_) => TaskEnd::Fatal(line),
    };
    // Nobody listens only while the whole worker ends.
    let _ = tools.ended.send(end);
}
