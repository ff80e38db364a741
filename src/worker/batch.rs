//! A batch: records of one partition pair, decoded and packed as they arrive, in plain values.
//!
//! Usage is packed straight into the batch's buffer, so that a valid record allocates nothing of its own. The record's
//! own bytes are kept beside it until the commit, since what is known may still refuse it (`conflict`), and a dead
//! letter keeps a record whole. What facts do to balances is the business of [`Partition`](super::Partition).

use std::hash::BuildHasher as _;
use std::ops::Range;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::portion::Portion;
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
            Ok(customer) => self.origins[origin as usize].customer = customer,
            Err(refusal) => {
                self.origins[origin as usize].customer = record.key.and_then(customer_of);
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

    /// The same records in the batches that `choose` names for each, by its place; it is left out where that is `None`.
    /// What did not come by a topic, and how far the topics are read, stays with the first batch.
    pub(super) fn divide(self, rules: &Rules, batches: &mut [&mut Batch], choose: impl Fn(usize) -> Option<usize>) {
        for at in 0..self.origins.len() {
            if let Some(batch) = choose(at) {
                batches[batch].push_from(&self, at, rules);
            }
        }
        let first = &mut batches[0];
        for (next, read) in first.next.iter_mut().zip(self.next) {
            *next = (*next).max(read);
        }
        first.bill_runs.extend(self.bill_runs.into_iter().filter(|of| of.origin.is_none()));
    }

    /// The same records in their order, in batches whose accounts fit a portion and that keep each fact about a bill run
    /// apart: it is applied in a transaction of its own (`domain.md section 3`). Usage from `recent_from` on needs no buckets
    /// of long ago.
    pub(super) fn apart(self, rules: &Rules, portion: Portion, recent_from: Instant) -> Vec<Batch> {
        let begins = self.begins_of_parts(portion, recent_from);
        if begins.is_empty() {
            return vec![self];
        }
        let ends = begins.iter().copied().chain([self.len()]);
        let part = |(from, until): (usize, usize)| {
            let mut part = Batch::new(self.partition);
            (from..until).for_each(|at| part.push_from(&self, at, rules));
            part
        };
        [0].iter().chain(&begins).copied().zip(ends).map(part).collect()
    }

    /// The places of the records, but for the first, with which such a part begins.
    fn begins_of_parts(&self, portion: Portion, recent_from: Instant) -> Vec<usize> {
        let old = self.reaching_back(recent_from);
        let recent_size = portion.size(false).saturating_mul(self.len() - old.len());
        let most = portion.size(true).saturating_mul(old.len()).saturating_add(recent_size);
        if self.bill_runs.is_empty() && portion.holds(most) {
            return Vec::new();
        }
        let runs: Vec<u32> = self.bill_runs.iter().filter_map(|of| of.origin).collect();
        let (mut begins, mut after_run) = (Vec::new(), false);
        let (mut sizes, mut sum): (FxHashMap<i64, usize>, usize) = (FxHashMap::default(), 0);
        for (place, origin) in (0..).zip(&self.origins) {
            let is_run = runs.contains(&place);
            let size = portion.size(old.binary_search(&place).is_ok());
            let known = origin.customer.map_or(size, |customer| sizes.get(&customer).copied().unwrap_or(0));
            let is_full = !portion.holds(sum.saturating_add(size.saturating_sub(known)));
            if place > 0 && (is_run || after_run || is_full) {
                begins.push(place as usize);
                sizes.clear();
                sum = 0;
            }
            if let Some(customer) = origin.customer {
                let known = sizes.entry(customer).or_default();
                sum = sum.saturating_add(size.saturating_sub(*known));
                *known = size.max(*known);
            }
            after_run = is_run;
        }
        begins
    }

    /// The places of the records that may need buckets of long ago, in order: some facts, and what is not recent. Nothing is that
    /// comes from [`Instant::MAX`] on.
    fn reaching_back(&self, recent_from: Instant) -> Vec<u32> {
        let is_old = |key: &LedgerKey| key.position.start < recent_from;
        let usage = self.usage.iter().filter(|usage| is_old(&usage.key)).map(|usage| usage.origin);
        let reversals = self.reversals.iter().filter(|reversal| is_old(&reversal.key)).map(|reversal| reversal.origin);
        let needs_all = |of: &&BatchReference| recent_from == Instant::MAX || of.fact.may_need_all_buckets();
        let references = self.references.iter().filter(needs_all).map(|reference| reference.origin);
        let mut places: Vec<u32> = usage.chain(reversals).chain(references).collect();
        places.sort_unstable();
        places
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

    const RULES: Rules = Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_future: Duration::from_secs(86_400),
        retention: Duration::from_secs(86_400),
    };

    fn push(batch: &mut Batch, input: Input, offset: i64, kind: &str, key: &str, data: &str) {
        let value = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{offset}\",\"source\":\"/t\",\"type\":\"{kind}\",\"data\":{data}}}"
        );
        let headers = [("trace", Some(b"x".as_slice()))];
        let record = Record {
            partition: 0,
            timestamp: Some(0),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: headers.iter().copied(),
        };
        batch.push(input, offset, &record, &RULES);
    }

    fn usage(batch: &mut Batch, offset: i64) {
        usage_of(batch, offset, 1);
    }

    fn usage_of(batch: &mut Batch, offset: i64, customer: i64) {
        let data = "{\"customerId\":CUSTOMER,\"siteId\":1,\"usageProductInventoryId\":1,\"usageProductId\":1,\
                    \"startTime\":\"1970-01-01T00:00:00Z\",\"chargingType\":\"MB\",\"quantity\":1}";
        let customer = customer.to_string();
        push(batch, Input::Usage, offset, "usage.recorded", &customer, &data.replace("CUSTOMER", &customer));
    }

    fn bill_run(batch: &mut Batch, offset: i64) {
        let data = "{\"version\":1,\"billRunId\":7,\"billingCycleId\":0,\"periodStartDate\":\"1970-01-01\",\
                    \"periodEndDate\":\"1970-01-31\",\"status\":\"OPEN\"}";
        push(batch, Input::Assignments, offset, "bill-run.changed", "7", data);
    }

    #[test]
    fn facts_about_bill_runs_stand_apart() {
        let mut batch = Batch::new(0);
        usage(&mut batch, 10);
        usage(&mut batch, 11);
        bill_run(&mut batch, 3);
        bill_run(&mut batch, 4);
        push(&mut batch, Input::Usage, 12, "usage.recorded", "1", "{}");
        let next = |batch: &Batch, from: Offsets| batch.next(from);
        let whole = next(&batch, Offsets::default());
        let parts = batch.apart(&RULES, Portion::of_customers(100), Instant::MIN);
        let shapes: Vec<_> = parts.iter().map(|p| (p.usage.len(), p.bill_runs.len(), p.refused.len())).collect();
        assert_eq!(shapes, [(2, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)]);
        assert_eq!(parts.iter().fold(Offsets::default(), |from, part| next(part, from)), whole);
        assert_eq!(next(&parts[1], Offsets { usage: 12, assignments: 0 }), Offsets { usage: 12, assignments: 4 });
        let letter = parts[3].dead_letter(0, "usage", parts[3].refused[0].1.clone());
        assert_eq!((letter.offset, letter.headers), (12, vec![("trace".to_owned(), Some(b"x".to_vec()))]));
    }

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
    fn a_batch_without_bill_runs_stays_whole() {
        let mut batch = Batch::new(0);
        usage(&mut batch, 0);
        usage(&mut batch, 1);
        let parts = batch.apart(&RULES, Portion::of_customers(1), Instant::MIN);
        assert_eq!(parts.iter().map(Batch::len).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_batch_of_too_many_customers_goes_in_parts() {
        let batch = || {
            let mut batch = Batch::new(0);
            (0..).zip([1, 2, 1, 2, 3, 3, 1]).for_each(|(offset, customer)| usage_of(&mut batch, offset, customer));
            batch
        };
        let lengths = |parts: &[Batch]| parts.iter().map(Batch::len).collect::<Vec<_>>();
        let apart = |batch: Batch, customers| batch.apart(&RULES, Portion::of_customers(customers), Instant::MIN);
        assert_eq!(lengths(&apart(batch(), 3)), [7], "of three customers");
        assert_eq!(lengths(&apart(batch(), 2)), [4, 3]);
        assert_eq!(lengths(&apart(batch(), 1)), [1, 1, 1, 1, 2, 1]);
        let mut with_a_run = batch();
        bill_run(&mut with_a_run, 3);
        usage_of(&mut with_a_run, 7, 4);
        let parts = apart(with_a_run, 2);
        assert_eq!(lengths(&parts), [4, 3, 1, 1]);
        let next = parts.iter().fold(Offsets::default(), |read, part| part.next(read));
        assert_eq!(next, Offsets { usage: 8, assignments: 4 });
    }

    #[test]
    fn records_that_need_buckets_of_long_ago_take_more_of_a_portion() {
        let batch = |lateness: [bool; 5]| {
            let mut batch = Batch::new(0);
            (0..).zip([1, 2, 1, 3, 4]).for_each(|(offset, customer)| usage_of(&mut batch, offset, customer));
            for (usage, is_old) in batch.usage.iter_mut().zip(lateness) {
                usage.key.position.start = Instant::from_micros(if is_old { 99 } else { 100 });
            }
            batch
        };
        let portion = Portion::of_sizes(10, 2, 5);
        let lengths = |lateness| {
            let parts = batch(lateness).apart(&RULES, portion, Instant::from_micros(100));
            parts.iter().map(Batch::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths([false; 5]), [5], "8 bytes");
        assert_eq!(lengths([true, false, false, false, false]), [4, 1], "9 bytes of three, 2 of the last");
        assert_eq!(lengths([false, false, true, false, false]), [4, 1], "a customer counts once");
        assert_eq!(lengths([true; 5]), [3, 2]);
        let parts = batch([false; 5]).apart(&RULES, portion, Instant::MAX);
        assert_eq!(parts.iter().map(Batch::len).collect::<Vec<_>>(), [3, 2], "nothing is recent");
        let facts = |kind: &str, more: &str, recent_from: Instant| {
            let mut facts = Batch::new(0);
            for (offset, customer) in [(0, "1"), (1, "2"), (2, "3")] {
                let data = format!("{{\"version\":1,\"customerId\":{customer},{more}}}");
                push(&mut facts, Input::Assignments, offset, kind, customer, &data);
            }
            assert_eq!(facts.references.len(), 3);
            facts.apart(&RULES, portion, recent_from).iter().map(Batch::len).collect::<Vec<_>>()
        };
        let removed = "\"assignmentId\":1,\"assignmentLevel\":\"CUSTOMER\"";
        assert_eq!(facts("assignment.removed", removed, Instant::MIN), [2, 1], "assignments need all of an account");
        let line = "\"usageProductInventoryId\":1,\"siteId\":1,\"usageProductId\":1";
        assert_eq!(facts("inventory.changed", line, Instant::MIN), [3], "lines do not");
        assert_eq!(facts("inventory.changed", line, Instant::MAX), [2, 1], "but that rows are stored before them");
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
