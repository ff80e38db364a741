//! A batch: records of one partition pair, decoded and packed as they arrive, in plain values.
//!
//! Usage is packed straight into the batch's buffer, so that a valid record allocates nothing of its own. The record's
//! own bytes are kept beside it until the commit, since what is known may still refuse it (`conflict`), and a dead
//! letter keeps a record whole. How a batch is divided stands in `parts`; what facts do to balances is the business of [`Partition`](super::Partition).

mod parts;

pub use parts::Parts;

use std::hash::BuildHasher as _;
use std::ops::Range;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::domain::{ChargingType, EventKey, Instant, Position, Quantity, Reference, Refusal, RunFact, Usage, packed};
use crate::events::{self, AssignmentFact, Record, Rules, UsageFact};
use crate::store::{DeadLetterRow, LedgerKey, Offsets};

/// One of the two input topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// usage-events
    Usage,
    /// assignment-events
    Assignments,
}

/// A record as it came, for dead letters.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) input: Input,
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
    /// Where its key, value and headers lie in the batch; a key or value that is absent is empty there.
    raw: Range<u32>,
    key_length: u32,
    absent: (bool, bool),
    headers: u32,
    /// Whom it is about; `None` for a bill run. Of one that was refused, the customer that its key names.
    customer: Option<i64>,
}

/// Usage of a batch.
#[derive(Debug, Clone)]
pub(super) struct BatchUsage {
    pub(super) key: LedgerKey,
    /// The source's place in the batch.
    pub(super) source: u32,
    pub(super) charging_type: ChargingType,
    pub(super) quantity: Quantity,
    /// Where its packed form lies in the batch.
    pub(super) body: Range<u32>,
    pub(super) origin: u32,
}

/// A reversal of a batch.
#[derive(Debug, Clone)]
pub(super) struct BatchReversal {
    pub(super) key: LedgerKey,
    pub(super) source: String,
    pub(super) id: String,
    pub(super) origin: u32,
}

/// A reference fact of a batch.
#[derive(Debug, Clone)]
pub(super) struct BatchReference {
    pub(super) customer: i64,
    pub(super) version: i64,
    pub(super) fact: Reference,
    pub(super) origin: u32,
}

/// A fact about a bill run.
#[derive(Debug, Clone)]
pub(super) struct BatchBillRun {
    pub(super) fact: RunFact,
    /// `None` for a fact that came from another partition by the store.
    pub(super) origin: Option<u32>,
}

/// Headers of a record.
type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Records of one partition pair on their way to a commit.
#[derive(Debug, Default)]
pub struct Batch {
    partition: i32,
    pub(super) usage: Vec<BatchUsage>,
    pub(super) reversals: Vec<BatchReversal>,
    pub(super) references: Vec<BatchReference>,
    pub(super) bill_runs: Vec<BatchBillRun>,
    pub(super) refused: Vec<(u32, Refusal)>,
    /// Packed usage.
    pub(super) bytes: Vec<u8>,
    pub(super) sources: Vec<String>,
    /// Where sources stand there, by their hash.
    source_places: FxHashMap<u64, u32>,
    origins: Vec<Origin>,
    /// Whom they are about.
    customers: FxHashSet<i64>,
    raw: Vec<u8>,
    headers: Vec<Headers>,
    /// About how many bytes `headers` takes.
    header_bytes: usize,
    next: [Option<i64>; 2],
    /// Where the topics were read on from for it, where that is known.
    from: Option<Offsets>,
    /// Whether its records were judged already.
    is_begun: bool,
}

impl Batch {
    /// An empty batch of a partition pair.
    pub fn new(partition: i32) -> Batch {
        Batch { partition, ..Batch::default() }
    }

    /// The same batch, emptied for a partition pair: its buffers need not grow again.
    pub(super) fn emptied(mut self, partition: i32) -> Batch {
        self.partition = partition;
        self.usage.clear();
        self.reversals.clear();
        self.references.clear();
        self.bill_runs.clear();
        self.refused.clear();
        self.bytes.clear();
        self.sources.clear();
        self.source_places.clear();
        self.origins.clear();
        self.customers.clear();
        self.raw.clear();
        self.headers.clear();
        self.header_bytes = 0;
        self.next = [None; 2];
        self.from = None;
        self.is_begun = false;
        self
    }

    /// Says where the topics are read on from.
    pub(super) fn begin_at(&mut self, from: Offsets) {
        self.from = Some(from);
    }

    /// Says that an input has no record before this offset but those taken in.
    pub(super) fn go_on_to(&mut self, input: Input, offset: i64) {
        self.next[input as usize] = Some(offset);
    }

    /// Whether it follows what was read so far, so that no record between is lost; so does one that does not say.
    pub(super) fn follows(&self, read: Offsets) -> bool {
        self.from.is_none_or(|from| from == read)
    }

    /// Takes a record in.
    pub fn push<'a, H>(&mut self, input: Input, offset: i64, record: &Record<'a, H>, rules: &Rules)
    where
        H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    {
        let origin = self.note_origin(input, offset, record);
        self.next[input as usize] = Some(offset + 1);
        let taken = match input {
            Input::Usage => events::decode_usage(record, rules).map(|fact| Some(self.push_usage(&fact, origin))),
            Input::Assignments => events::decode_assignment(record, rules).map(|fact| self.push_fact(fact, origin)),
        };
        match taken {
            Ok(customer) => self.note_customer(origin, customer),
            Err(refusal) => {
                self.note_customer(origin, record.key.and_then(customer_of));
                self.refused.push((origin, refusal));
            }
        }
    }

    /// Takes a fact about a bill run that came in on another partition.
    pub fn push_bill_run(&mut self, fact: RunFact) {
        self.bill_runs.push(BatchBillRun { fact, origin: None });
    }

    /// Whether its records were judged already, which takes some of them out of it.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Notes that its records are judged now.
    pub(super) fn begin(&mut self) {
        self.is_begun = true;
    }

    /// Whether it brings a fact about a bill run, by the topic or not.
    pub(super) fn brings_bill_run(&self) -> bool {
        !self.bill_runs.is_empty()
    }

    /// Whether a fact about a bill run came in by the topic.
    pub(super) fn has_bill_run(&self) -> bool {
        self.bill_runs.iter().any(|of| of.origin.is_some())
    }

    /// Its records, in their order of arrival: the input, the offset, and the customer of those that name one.
    pub fn records(&self) -> Vec<(Input, i64, Option<i64>)> {
        self.origins.iter().map(|origin| (origin.input, origin.offset, origin.customer)).collect()
    }

    /// Takes in a record of another batch.
    fn push_from(&mut self, other: &Batch, at: usize, rules: &Rules) {
        let origin = &other.origins[at];
        let (key, value) = other.key_and_value(origin);
        let headers = other.headers[origin.headers as usize].iter();
        let record = Record {
            partition: other.partition,
            timestamp: origin.timestamp,
            key,
            value,
            headers: headers.map(|(name, value)| (name.as_str(), value.as_deref())),
        };
        self.push(origin.input, origin.offset, &record, rules);
    }

    /// Takes usage or a reversal in; returns whose it is.
    fn push_usage(&mut self, fact: &UsageFact<'_>, origin: u32) -> i64 {
        match fact {
            UsageFact::Recorded(recorded) => {
                let usage = recorded.usage();
                let start = end(&self.bytes);
                packed::pack(&usage, &mut self.bytes);
                let key = LedgerKey { customer: recorded.customer, position: usage.position };
                let source = self.source(&recorded.source);
                let body = start..end(&self.bytes);
                let Usage { charging_type, quantity, .. } = usage;
                self.usage.push(BatchUsage { key, source, charging_type, quantity, body, origin });
                recorded.customer
            }
            UsageFact::Reversed(reversal) => {
                let position = Position { start: reversal.start, key: EventKey::new(&reversal.source, &reversal.id) };
                self.reversals.push(BatchReversal {
                    key: LedgerKey { customer: reversal.customer, position },
                    source: reversal.source.clone().into_owned(),
                    id: reversal.id.clone().into_owned(),
                    origin,
                });
                reversal.customer
            }
        }
    }

    /// Takes a fact in; returns whom it is about, unless that is a bill run.
    fn push_fact(&mut self, fact: AssignmentFact, origin: u32) -> Option<i64> {
        match fact {
            AssignmentFact::Reference { customer, version, fact } => {
                self.references.push(BatchReference { customer, version, fact, origin });
                Some(customer)
            }
            AssignmentFact::BillRun { version, run } => {
                let fact = RunFact { version, run };
                self.bill_runs.push(BatchBillRun { fact, origin: Some(origin) });
                None
            }
        }
    }

    /// The place of a source; mostly there are few, but each record may have its own.
    fn source(&mut self, source: &str) -> u32 {
        let next = u32::try_from(self.sources.len()).expect("no more sources than records");
        let at = *self.source_places.entry(FxBuildHasher.hash_one(source)).or_insert(next);
        match self.sources.get(at as usize) {
            Some(known) if known == source => at,
            // Another one with its hash stands there: this one may stand twice.
            _ => {
                self.sources.push(source.to_owned());
                next
            }
        }
    }

    /// Notes whom a record is about.
    fn note_customer(&mut self, origin: u32, customer: Option<i64>) {
        self.origins[origin as usize].customer = customer;
        self.customers.extend(customer);
    }

    fn note_origin<'a, H>(&mut self, input: Input, offset: i64, record: &Record<'a, H>) -> u32
    where
        H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    {
        let start = end(&self.raw);
        self.raw.extend_from_slice(record.key.unwrap_or_default());
        let key_length = end(&self.raw) - start;
        self.raw.extend_from_slice(record.value.unwrap_or_default());
        let headers = self.note_headers(record.headers.clone());
        self.origins.push(Origin {
            input,
            offset,
            timestamp: record.timestamp,
            raw: start..end(&self.raw),
            key_length,
            absent: (record.key.is_none(), record.value.is_none()),
            headers,
            customer: None,
        });
        u32::try_from(self.origins.len() - 1).expect("a batch is bounded")
    }

    /// The place of these headers; records of one producer have the same ones again and again.
    fn note_headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone) -> u32 {
        let known = self.headers.last().is_some_and(|last| same_headers(last, headers.clone()));
        if !known {
            let owned = headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
            let owned: Headers = owned.collect();
            let bytes = |header: &(String, Option<Vec<u8>>)| {
                size_of_val(header) + header.0.len() + header.1.as_ref().map_or(0, Vec::len)
            };
            self.header_bytes += size_of::<Headers>() + owned.iter().map(bytes).sum::<usize>();
            self.headers.push(owned);
        }
        u32::try_from(self.headers.len() - 1).expect("no more headers than records")
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// How many customers they are about.
    pub(super) fn customers(&self) -> usize {
        self.customers.len()
    }

    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty() && self.bill_runs.is_empty()
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        self.raw.len()
            + self.bytes.len()
            + self.header_bytes
            + self.origins.len() * (size_of::<Origin>() + size_of::<BatchUsage>())
    }

    /// The partition pair.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offsets after this batch, given those before it.
    pub(super) fn next(&self, from: Offsets) -> Offsets {
        Offsets {
            usage: self.next[Input::Usage as usize].unwrap_or(from.usage),
            assignments: self.next[Input::Assignments as usize].unwrap_or(from.assignments),
        }
    }

    /// The first offsets in it; those given, for a topic of which it has none.
    pub(super) fn first(&self, otherwise: Offsets) -> Offsets {
        let first = |input: Input| self.origins.iter().filter(|origin| origin.input == input).map(|o| o.offset).min();
        Offsets {
            usage: first(Input::Usage).unwrap_or(otherwise.usage),
            assignments: first(Input::Assignments).unwrap_or(otherwise.assignments),
        }
    }

    /// The packed form of usage.
    pub(super) fn body(&self, usage: &BatchUsage) -> &[u8] {
        &self.bytes[usage.body.start as usize..usage.body.end as usize]
    }

    /// Usage by its place.
    pub(super) fn unpacked(&self, at: u32) -> Usage<'_> {
        let usage = &self.usage[at as usize];
        packed::unpack(usage.key.position, self.body(usage)).expect("what was packed can be unpacked")
    }

    pub(super) fn origin(&self, origin: u32) -> &Origin {
        &self.origins[origin as usize]
    }

    /// The timestamps of its records, in milliseconds since the Unix epoch.
    pub(super) fn timestamps(&self) -> impl Iterator<Item = i64> {
        self.origins.iter().filter_map(|origin| origin.timestamp)
    }

    /// The number of causes that are records of this batch; further numbers stand for events of the ledger.
    pub(super) fn causes(&self) -> u32 {
        u32::try_from(self.usage.len() + self.reversals.len()).expect("a batch is bounded")
    }

    /// The source and id of the event that a cause number stands for, and its start.
    pub(super) fn cause(&self, cause: u32) -> Option<Cause<'_>> {
        let at = cause as usize;
        if let Some(usage) = self.usage.get(at) {
            let id = self.unpacked(cause).id;
            let start = usage.key.position.start;
            return Some(Cause { source: &self.sources[usage.source as usize], id, start });
        }
        let reversal = self.reversals.get(at - self.usage.len())?;
        Some(Cause { source: &reversal.source, id: &reversal.id, start: reversal.key.position.start })
    }

    fn key_and_value(&self, origin: &Origin) -> (Option<&[u8]>, Option<&[u8]>) {
        let bytes = &self.raw[origin.raw.start as usize..origin.raw.end as usize];
        let (key, value) = bytes.split_at(origin.key_length as usize);
        ((!origin.absent.0).then_some(key), (!origin.absent.1).then_some(value))
    }

    /// A record as a dead letter.
    pub(super) fn dead_letter(&self, origin: u32, topic: &str, refusal: Refusal) -> DeadLetterRow {
        let origin = self.origin(origin);
        let (key, value) = self.key_and_value(origin);
        let headers = &self.headers[origin.headers as usize];
        let record = Record {
            partition: self.partition,
            timestamp: origin.timestamp,
            key,
            value,
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())),
        };
        DeadLetterRow {
            topic: topic.to_owned(),
            offset: origin.offset,
            timestamp: origin.timestamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.clone(),
            reason: refusal.reason.name(),
            detail: refusal.detail,
            customer: events::customer_of(&record),
        }
    }
}

/// The usage event that an alert came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause<'a> {
    pub(super) source: &'a str,
    pub(super) id: &'a str,
    pub(super) start: Instant,
}

fn same_headers<'a>(known: &Headers, mut headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> bool {
    let mut known = known.iter();
    loop {
        match (known.next(), headers.next()) {
            (None, None) => return true,
            (Some((name, value)), Some(other)) if name == other.0 && value.as_deref() == other.1 => {}
            _ => return false,
        }
    }
}

/// The customer that a key names (`domain.md section 2`).
fn customer_of(key: &[u8]) -> Option<i64> {
    std::str::from_utf8(key).ok()?.parse().ok()
}

/// The end of a buffer that a batch's limits keep small.
fn end(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a batch is bounded well below 4 GiB")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Partitioner;

    pub(super) const RULES: Rules = Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_future: Duration::from_secs(86_400),
        retention: Duration::from_secs(86_400),
    };

    #[test]
    fn a_batch_follows_what_was_read_or_it_is_noticed() {
        let read = Offsets { usage: 10, assignments: 4 };
        let mut batch = Batch::new(0);
        assert!(batch.follows(read));
        batch.begin_at(read);
        assert!(batch.follows(read));
        assert!(!batch.follows(Offsets { usage: 9, ..read }));
        assert!(batch.emptied(0).follows(Offsets::default()));
    }

    #[test]
    fn a_batch_is_as_large_as_its_headers_too() {
        let mut batch = Batch::new(0);
        let large = vec![0; 100_000];
        for (offset, trace) in (0..).zip([&large[..], &large[..], b"small", &large[..]]) {
            let headers = [("trace", Some(trace))];
            let headers = headers.iter().copied();
            let record = Record { partition: 0, timestamp: None, key: None, value: None, headers };
            batch.push(Input::Usage, offset, &record, &RULES);
        }
        assert!((200_000..210_000).contains(&batch.size()), "those alike stand once: {}", batch.size());
        assert!(batch.emptied(0).size() < 1_000);
    }

    #[test]
    fn each_record_may_have_its_own_source() {
        let mut batch = Batch::new(0);
        let places: Vec<u32> = ["a", "b", "a", "c", "b"].map(|source| batch.source(source)).to_vec();
        assert_eq!((places, batch.sources), (vec![0, 1, 0, 2, 1], ["a", "b", "c"].map(str::to_owned).to_vec()));
    }
}
