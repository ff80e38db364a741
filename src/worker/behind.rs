//! Customers behind: what they know is folded again for so long that the others of their partition must not wait.
//!
//! Such a customer's records are taken out of the batches and kept aside, and the partition's position moves on without
//! them; the store notes from which offsets on they are not applied. Between batches the customer's replay goes on in
//! steps, each no longer than a pause, and writes the ledger rows that draw otherwise as it goes. Everything else of the
//! customer, buckets above all, stays as it was until one commit applies the records, so that nobody ever reads a balance
//! between two states. Whoever takes the partition meanwhile reads those records again and begins anew; the note beside
//! the customer says from where on the ledger's draws are not to be relied upon.

use std::time::Instant as Clock;

use super::batch::Batch;
use super::draw::Share;
use super::partition::{Applied, Partition, Prepared};
use super::replay::{Pace, Replay};
use crate::store::{Behind, Commit, CommitError, Offsets};

/// A customer behind.
pub(super) struct Trailing {
    /// What the store knows of it.
    pub(super) row: Behind,
    /// Whether the store knows of it yet.
    is_stored: bool,
    /// Its records that are not applied, but for those of the course.
    parked: Batch,
    course: Option<Box<Course>>,
}

/// Records of a customer behind on their way to a commit.
struct Course {
    batch: Batch,
    prepared: Prepared,
    /// `None` when they need no replay after all.
    replay: Option<Replay>,
}

impl Trailing {
    /// A customer behind as a store has it.
    pub(super) fn stored(row: Behind, partition: i32) -> Trailing {
        Trailing { row, is_stored: true, parked: Batch::new(partition), course: None }
    }
}

impl Partition {
    /// Whether some customer is behind.
    pub fn is_behind(&self) -> bool {
        !self.trailing.is_empty()
    }

    /// How many customers are behind.
    pub fn behind(&self) -> usize {
        self.trailing.len()
    }

    /// Whether [`Partition::catch_up`] has something to do now.
    pub fn can_catch_up(&self) -> bool {
        self.is_letting_in() || self.next_trailing().is_some()
    }

    /// Whether a batch must wait until there is nothing to catch up: it brings a fact about a bill run, which is about
    /// customers as all facts before it make them, or too many records of customers behind are kept aside.
    pub fn must_catch_up(&self, batch: &Batch) -> bool {
        let parked: usize = self.trailing.values().map(|trailing| trailing.parked.size()).sum();
        self.can_catch_up() && (batch.brings_bill_run() || parked >= self.context.behind_bytes)
    }

    /// Whether records of customers behind are yet to be read again.
    pub(super) fn reads_again(&self) -> bool {
        self.is_behind() && !self.all_is_read()
    }

    /// Whether all that the topics had for customers behind is read again.
    fn all_is_read(&self) -> bool {
        self.read.earlier(self.offsets) == self.offsets
    }

    /// The customer behind whose turn it is, if there is something to do for one.
    fn next_trailing(&self) -> Option<i64> {
        let under_way = self.trailing.iter().find(|(_, trailing)| trailing.course.is_some());
        // An unfinished fold is ended even before its records are read again: others may come to what it left.
        let waits = |(_, trailing): &(&i64, &Trailing)| {
            !trailing.parked.is_empty() || trailing.row.unfinished.is_some() || self.all_is_read()
        };
        under_way.or_else(|| self.trailing.iter().find(waits)).map(|(customer, _)| *customer)
    }

    /// Leaves customers behind: nothing of them from here on is applied.
    pub(super) fn leave_behind(&mut self, customers: &[i64]) {
        for customer in customers {
            let row = Behind { customer: *customer, offsets: self.offsets, unfinished: None };
            self.trailing.insert(*customer, Trailing { is_stored: false, ..Trailing::stored(row, self.partition) });
        }
    }

    /// Takes the records of customers behind out of a batch and keeps them, and those that are applied already, since
    /// they are read again, out of it.
    pub(super) fn set_aside(&mut self, batch: &mut Batch) {
        let all = std::mem::replace(batch, Batch::new(self.partition));
        self.read = self.read.later(all.next(self.read));
        let mut customers = Vec::with_capacity(self.trailing.len());
        let mut from = Vec::with_capacity(self.trailing.len());
        let mut parked = Vec::with_capacity(self.trailing.len());
        for (customer, trailing) in &mut self.trailing {
            customers.push(*customer);
            from.push(trailing.row.offsets);
            parked.push(&mut trailing.parked);
        }
        let records = all.records();
        let offsets = self.offsets;
        let choose = |at: usize| {
            let (input, offset, customer) = records[at];
            let place = customer.and_then(|customer| customers.binary_search(&customer).ok());
            let (place, first) = place.map_or((0, offsets), |place| (place + 1, from[place]));
            (offset >= input.of(first)).then_some(place)
        };
        if !all.is_begun() && (0..records.len()).all(|at| choose(at) == Some(0)) {
            *batch = all;
            return;
        }
        let mut batches = vec![batch];
        batches.append(&mut parked);
        all.divide(&self.context.rules, &mut batches, choose);
    }

    /// The customers behind that no store knows of yet.
    pub(super) fn newly_behind(&self) -> impl Iterator<Item = Behind> {
        self.trailing.values().filter(|trailing| !trailing.is_stored).map(|trailing| trailing.row.clone())
    }

    /// Notes who is behind after a commit.
    pub(super) fn note_behind(&mut self, commit: &Commit) {
        for behind in &commit.behind {
            if let Some(trailing) = self.trailing.get_mut(&behind.customer) {
                trailing.is_stored = true;
            }
        }
    }

    /// Goes on for a pause with what a customer behind has to catch up, else with usage that a run held and is let in.
    /// Returns the records that are applied by that, and what became of them.
    pub async fn catch_up(&mut self) -> Result<Option<(Batch, Applied)>, CommitError> {
        let until = Clock::now() + self.context.replay_pause;
        match self.next_trailing() {
            Some(customer) => self.catch_up_with(customer, until, None).await,
            None if self.is_letting_in() => self.let_in(until).await,
            None => Ok(None),
        }
    }

    /// Goes on with one customer behind. `let_in` is the run whose held usage is let in up to it, when it is that one's turn:
    /// for that none of its records need be read again.
    pub(super) async fn catch_up_with(
        &mut self,
        customer: i64,
        until: Clock,
        let_in: Option<i64>,
    ) -> Result<Option<(Batch, Applied)>, CommitError> {
        let Some(mut trailing) = self.trailing.remove(&customer) else { return Ok(None) };
        let course = match trailing.course.take() {
            Some(course) => course,
            None => Box::new(self.set_out(&mut trailing).await?),
        };
        let (course, is_done) = self.go_on(course, until).await?;
        if is_done {
            return self.arrive(trailing, *course, let_in).await.map(Some);
        }
        self.write_ahead(trailing, course).await?;
        Ok(None)
    }

    /// Judges the records kept aside, and sees what they change.
    async fn set_out(&mut self, trailing: &mut Trailing) -> Result<Course, CommitError> {
        let mut batch = Batch::new(self.partition);
        // What a reversed event drew at the last commit, which an alert's cause depends on (`domain.md section 7`), the
        // ledger has again only once an unfinished fold is ended: by itself, before the records.
        if trailing.row.unfinished.is_none() || trailing.parked.reversals.is_empty() {
            std::mem::swap(&mut batch, &mut trailing.parked);
        }
        let mut prepared = self.prepare(&mut batch, &[trailing.row.customer]).await?;
        self.prepare_store(&batch, &mut prepared).await?;
        let unfinished = trailing.row.unfinished.as_ref();
        let Prepared { accounts, unsettled, judged, draft, tail } = &mut prepared;
        let account = accounts.first_mut().expect("a customer behind is known");
        let share = Share::whole(judged, unsettled.get(&account.customer()).copied());
        let replay = if unfinished.is_none() && self.draw_fast(&batch, account, &share, draft, tail)? {
            None
        } else {
            self.begin_replay(&batch, account, &share, unfinished, draft, tail)?
        };
        Ok(Course { batch, prepared, replay })
    }

    /// Writes what must not wait for the last commit: rows of a run that is being stored, since its turn may come to the
    /// customer before, and sources, since others may give out their numbers.
    async fn prepare_store(&mut self, batch: &Batch, prepared: &mut Prepared) -> Result<(), CommitError> {
        let mut commit = self.commit_in_place();
        let drafted = &mut prepared.draft.commit;
        commit.stored_rows.append(&mut drafted.stored_rows);
        commit.stored_ahead.append(&mut drafted.stored_ahead);
        for new in &prepared.judged.new {
            let source = &batch.sources[batch.usage[new.at as usize].source as usize];
            self.source_number(source, &mut commit);
        }
        if commit.stored_ahead.is_empty() && commit.sources.is_empty() {
            return Ok(());
        }
        self.write(&commit).await?;
        self.note_stored(&commit);
        self.sources.extend(commit.sources.into_iter().map(|(number, source)| (source, number)));
        Ok(())
    }

    /// Goes on with the replay; true when it is done.
    async fn go_on(&mut self, mut course: Box<Course>, until: Clock) -> Result<(Box<Course>, bool), CommitError> {
        let Course { batch, prepared, replay } = course.as_mut();
        let Some(replay) = replay else { return Ok((course, true)) };
        let Prepared { accounts, unsettled, judged, draft, tail } = prepared;
        let account = accounts.first_mut().expect("a customer behind is known");
        let share = Share::whole(judged, unsettled.get(&account.customer()).copied());
        let pace = Pace { until, changes: self.context.replay_page };
        let is_done = self.replay(replay, batch, account, &share, draft, tail, pace).await?;
        Ok((course, is_done))
    }

    /// Writes the ledger rows that draw otherwise so far, so that memory stays bounded and the last commit small.
    async fn write_ahead(&mut self, mut trailing: Trailing, mut course: Box<Course>) -> Result<(), CommitError> {
        if let Some(replay) = course.replay.as_mut().filter(|replay| !replay.changes.is_empty()) {
            let mut commit = self.commit_in_place();
            commit.usage_changes = std::mem::take(&mut replay.changes);
            let unfinished = Some(replay.unfinished());
            if trailing.row.unfinished != unfinished {
                trailing.row.unfinished = unfinished;
                commit.behind.push(trailing.row.clone());
            }
            self.write(&commit).await?;
        }
        trailing.course = Some(course);
        self.trailing.insert(trailing.row.customer, trailing);
        Ok(())
    }

    /// Applies the records in one commit. The customer stays behind with those that came meanwhile.
    async fn arrive(
        &mut self,
        mut trailing: Trailing,
        course: Course,
        let_in: Option<i64>,
    ) -> Result<(Batch, Applied), CommitError> {
        let Course { mut batch, mut prepared, replay } = course;
        let row = let_in.and_then(|run| self.bill_runs.note_letting_in(run, Some(trailing.row.customer)));
        let commit = &mut prepared.draft.commit;
        commit.usage_changes.extend(replay.into_iter().flat_map(|replay| replay.changes));
        let later = trailing.parked.first(self.read).later(trailing.row.offsets);
        let is_behind = !trailing.parked.is_empty() || !self.all_is_read();
        commit.bill_runs.extend(row);
        let customer = trailing.row.customer;
        if is_behind {
            trailing.row = Behind { customer, offsets: later, unfinished: None };
            commit.behind.push(trailing.row.clone());
            self.trailing.insert(customer, trailing);
        } else {
            commit.caught_up.push(customer);
        }
        let applied = self.conclude(&mut batch, prepared, self.offsets).await?;
        Ok((batch, applied))
    }
}

impl super::batch::Input {
    /// Its offset of two.
    pub(super) fn of(self, offsets: Offsets) -> i64 {
        match self {
            super::batch::Input::Usage => offsets.usage,
            super::batch::Input::Assignments => offsets.assignments,
        }
    }
}
