//! How a batch is divided: by customers who are behind, and into parts that are applied one after the other. Where a part
//! ends is found when its turn comes, since those before it tell how large accounts are.

use rustc_hash::FxHashMap;

use super::{Batch, BatchReference};
use crate::domain::Instant;
use crate::events::Rules;
use crate::store::LedgerKey;
use crate::worker::portion::Portion;

/// A batch on its way to be applied, part by part.
pub struct Parts {
    /// `None` once all is taken.
    batch: Option<Batch>,
    /// How many of its records are taken.
    taken: usize,
}

impl Parts {
    /// All of a batch.
    pub fn of(batch: Batch) -> Parts {
        Parts { batch: Some(batch), taken: 0 }
    }

    /// Whether the batch brings a fact about a bill run, taken or not.
    pub(in crate::worker) fn brings_bill_run(&self) -> bool {
        self.batch.as_ref().is_some_and(Batch::brings_bill_run)
    }

    /// The next records, in their order, as far as they go into one commit; the batch itself when that is all of it. `None`
    /// when nothing is left.
    pub(in crate::worker) fn next(&mut self, rules: &Rules, portion: Portion, recent_from: Instant) -> Option<Batch> {
        let batch = self.batch.as_ref()?;
        let until = batch.end_of_part(self.taken, portion, recent_from);
        if self.taken == 0 && until == batch.len() {
            return self.batch.take();
        }
        let mut part = Batch::new(batch.partition);
        (self.taken..until).for_each(|at| part.push_from(batch, at, rules));
        self.taken = until;
        if until == batch.len() {
            self.batch = None;
        }
        Some(part)
    }
}

impl Batch {
    /// The same records in the batches that `choose` names for each, by its place; it is left out where that is `None`.
    /// What did not come by a topic, and how far the topics are read, stays with the first batch.
    pub(in crate::worker) fn divide(
        self,
        rules: &Rules,
        batches: &mut [&mut Batch],
        choose: impl Fn(usize) -> Option<usize>,
    ) {
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

    /// The place after as many records from `from` on, one at least, as have accounts that fit a portion. Each fact about a
    /// bill run stays apart: it is applied in a transaction of its own (`domain.md section 3`). Usage from `recent_from` on
    /// needs no buckets of long ago.
    fn end_of_part(&self, from: usize, portion: Portion, recent_from: Instant) -> usize {
        let old = self.reaching_back(recent_from);
        let old = &old[old.partition_point(|place| (*place as usize) < from)..];
        let recent_size = portion.size(false).saturating_mul(self.len() - from - old.len());
        let most = portion.size(true).saturating_mul(old.len()).saturating_add(recent_size);
        let runs: Vec<u32> = self.bill_runs.iter().filter_map(|of| of.origin).collect();
        let next_run = runs.iter().map(|run| *run as usize).filter(|run| *run >= from).min();
        let until = match next_run {
            Some(run) if run == from => return from + 1,
            None if portion.holds(most) => return self.len(),
            next_run => next_run.unwrap_or(self.len()),
        };
        let (mut sizes, mut sum): (FxHashMap<i64, usize>, usize) = (FxHashMap::default(), 0);
        for place in from..until {
            let size = portion.size(old.binary_search(&(place as u32)).is_ok());
            let customer = self.origins[place].customer;
            let known = customer.map_or(size, |customer| sizes.get(&customer).copied().unwrap_or(0));
            let more = size.saturating_sub(known);
            // One account may be larger than a portion: its records stay together all the same.
            if place > from && more > 0 && !portion.holds(sum.saturating_add(more)) {
                return place;
            }
            if let Some(customer) = customer {
                sum = sum.saturating_add(more);
                sizes.insert(customer, size.max(known));
            }
        }
        until
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::RULES;
    use super::super::{Input, Record};
    use super::*;
    use crate::store::Offsets;

    /// All parts, as though nothing were learned of the accounts meanwhile.
    fn apart(batch: Batch, portion: Portion, recent_from: Instant) -> Vec<Batch> {
        let mut parts = Parts::of(batch);
        std::iter::from_fn(|| parts.next(&RULES, portion, recent_from)).collect()
    }

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
        let parts = apart(batch, Portion::of_customers(100), Instant::MIN);
        let shapes: Vec<_> = parts.iter().map(|p| (p.usage.len(), p.bill_runs.len(), p.refused.len())).collect();
        assert_eq!(shapes, [(2, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)]);
        assert_eq!(parts.iter().fold(Offsets::default(), |from, part| next(part, from)), whole);
        assert_eq!(next(&parts[1], Offsets { usage: 12, assignments: 0 }), Offsets { usage: 12, assignments: 4 });
        let letter = parts[3].dead_letter(0, "usage", parts[3].refused[0].1.clone());
        assert_eq!((letter.offset, letter.headers), (12, vec![("trace".to_owned(), Some(b"x".to_vec()))]));
    }

    #[test]
    fn a_batch_without_bill_runs_stays_whole() {
        let mut batch = Batch::new(0);
        usage(&mut batch, 0);
        usage(&mut batch, 1);
        let parts = apart(batch, Portion::of_customers(1), Instant::MIN);
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
        let apart = |batch, customers| apart(batch, Portion::of_customers(customers), Instant::MIN);
        assert_eq!(lengths(&apart(batch(), 3)), [7], "of three customers");
        assert_eq!(lengths(&apart(batch(), 2)), [4, 3]);
        assert_eq!(lengths(&apart(batch(), 1)), [1, 1, 1, 1, 2, 1]);
        assert_eq!(lengths(&apart(batch(), 0)), [1, 1, 1, 1, 2, 1], "none fits, and one is always applied");
        let mut with_a_run = batch();
        bill_run(&mut with_a_run, 3);
        usage_of(&mut with_a_run, 7, 4);
        let parts = apart(with_a_run, 2);
        assert_eq!(lengths(&parts), [4, 3, 1, 1]);
        let next = parts.iter().fold(Offsets::default(), |read, part| part.next(read));
        assert_eq!(next, Offsets { usage: 8, assignments: 4 });
    }

    #[test]
    fn a_part_is_as_large_as_the_accounts_before_it_allow() {
        let mut batch = Batch::new(0);
        (0..7).for_each(|offset| usage_of(&mut batch, offset, offset));
        let mut parts = Parts::of(batch);
        let mut next =
            |customers| parts.next(&RULES, Portion::of_customers(customers), Instant::MIN).map(|part| part.len());
        assert_eq!([next(1), next(4), next(4), next(4)], [Some(1), Some(4), Some(2), None]);
    }

    #[test]
    fn a_batch_that_only_goes_on_comes_out_once() {
        let mut batch = Batch::new(0);
        batch.go_on_to(Input::Usage, 9);
        let parts = apart(batch, Portion::of_customers(0), Instant::MIN);
        let next: Vec<_> = parts.iter().map(|part| part.next(Offsets::default()).usage).collect();
        assert_eq!(next, [9]);
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
            let parts = apart(batch(lateness), portion, Instant::from_micros(100));
            parts.iter().map(Batch::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths([false; 5]), [5], "8 bytes");
        assert_eq!(lengths([true, false, false, false, false]), [4, 1], "9 bytes of three, 2 of the last");
        assert_eq!(lengths([false, false, true, false, false]), [4, 1], "a customer counts once");
        assert_eq!(lengths([true; 5]), [3, 2]);
        let parts = apart(batch([false; 5]), portion, Instant::MAX);
        assert_eq!(parts.iter().map(Batch::len).collect::<Vec<_>>(), [3, 2], "nothing is recent");
        let facts = |kind: &str, more: &str, recent_from: Instant| {
            let mut facts = Batch::new(0);
            for (offset, customer) in [(0, "1"), (1, "2"), (2, "3")] {
                let data = format!("{{\"version\":1,\"customerId\":{customer},{more}}}");
                push(&mut facts, Input::Assignments, offset, kind, customer, &data);
            }
            assert_eq!(facts.references.len(), 3);
            apart(facts, portion, recent_from).iter().map(Batch::len).collect::<Vec<_>>()
        };
        let removed = "\"assignmentId\":1,\"assignmentLevel\":\"CUSTOMER\"";
        assert_eq!(facts("assignment.removed", removed, Instant::MIN), [2, 1], "assignments need all of an account");
        let line = "\"usageProductInventoryId\":1,\"siteId\":1,\"usageProductId\":1";
        assert_eq!(facts("inventory.changed", line, Instant::MIN), [3], "lines do not");
        assert_eq!(facts("inventory.changed", line, Instant::MAX), [2, 1], "but that rows are stored before them");
    }
}
