//! The replay of a customer's usage, from the first place in the order at which the batch changes something.
//!
//! The ledger is read from there on twice: once to sum up what its usage drew, which says what the buckets held at that
//! place, and once to fold it again, new usage in its place. What fits one page is read once only. The fold ends as soon
//! as nothing later can draw otherwise; in memory there is never more than a page, beside the rows that changed.

use std::collections::VecDeque;

use super::batch::Batch;
use super::draw::{Share, Tail, draws_of, split_front, taken_back};
use super::partition::{Draft, Partition};
use super::usage::{New, read};
use crate::domain::{Account, Draw, Position, SlotSums, UsageState, packed};
use crate::store::{LedgerKey, LedgerRow, StoreError, UsageChange};

/// What a replay is about, beside the account.
struct Course<'a> {
    /// New usage that is not folded yet.
    new: &'a [New],
    /// The last place at which the batch changes what counts.
    last_change: Option<Position>,
    /// How much more each bucket has than it had at the same place before.
    more: SlotSums,
}

impl Course<'_> {
    fn add(&mut self, draws: &[Draw], sign: i64) {
        for draw in draws {
            *self.more.entry(draw.slot).or_default() += sign * draw.amount.millionths();
        }
    }
}

impl Partition {
    /// Folds the customer's usage again as far as the batch changes what it draws.
    pub(super) async fn replay(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<(), StoreError> {
        draft.applied.replays += 1;
        let customer = account.customer();
        let counted = || share.new.iter().filter(|new| new.state == UsageState::Counted);
        let position_of = |new: &New| batch.usage[new.at as usize].key.position;
        let changes = || {
            let known = share.taken_back.iter().filter(|back| back.row.state == UsageState::Counted);
            let known = known.map(|back| back.key.position);
            let released = share.released.iter().map(|released| released.key.position);
            counted().map(position_of).chain(known).chain(released)
        };
        let from = changes().chain(share.unsettled.map(Position::first_at)).min();
        for back in share.taken_back {
            draft.commit.usage_changes.push(taken_back(back));
        }
        let Some(from) = from else {
            // Nothing that counts is new and nothing counts no more.
            for new in share.new {
                self.add_usage(batch, new, &[], draft, tail);
                account.note_usage(position_of(new).start);
            }
            return Ok(());
        };
        let (mut pages, drawn_since) = self.drawn_since(customer, from).await?;
        let mut lines: Vec<i64> = counted().map(|new| batch.unpacked(new.at).upi).collect();
        for back in share.taken_back {
            lines.push(read(back.key, &back.row)?.upi);
        }
        lines.extend(share.released.iter().map(|released| released.upi));
        lines.sort_unstable();
        lines.dedup();
        account.begin_replay(from, &drawn_since, &lines);
        for back in share.taken_back {
            account.note_reversed(back.key.position, &draws_of(back.key, &back.row)?, back.cause);
        }
        // Where other reference facts hold, later usage may draw otherwise in ways that sums do not show.
        let last_change = if share.unsettled.is_some() { None } else { changes().max() };
        let mut course = Course { new: share.new, last_change, more: SlotSums::default() };
        // Whether it is worth asking for the end: what differs has changed since it was asked last.
        let mut due = true;
        'fold: while let Some(rows) = pages.next(self, customer).await? {
            for row in &rows {
                let earlier = |new: &New| position_of(new) < row.position;
                for new in split_front(&mut course.new, earlier) {
                    self.fold_new(batch, account, new, &mut course, draft, tail);
                }
                due |= self.fold_row(account, share, row, &mut course, draft)?;
                let past = course.last_change.is_some_and(|last| row.position >= last) && course.new.is_empty();
                if past && due {
                    due = false;
                    if account.can_end_replay(row.position, &course.more) {
                        account.end_replay(row.position, &course.more);
                        break 'fold;
                    }
                }
            }
        }
        for new in std::mem::take(&mut course.new) {
            self.fold_new(batch, account, new, &mut course, draft, tail);
        }
        for new in share.new {
            account.note_usage(position_of(new).start);
        }
        self.find_lines(account, from).await
    }

    /// What the ledger's usage from a place on drew of each bucket, and its rows for the fold.
    async fn drawn_since(&self, customer: i64, from: Position) -> Result<(Pages, SlotSums), StoreError> {
        let mut sums = SlotSums::default();
        let before = from.before();
        let mut pages = Pages { read: VecDeque::new(), after: before, ended: false };
        let (mut after, mut first) = (before, true);
        loop {
            let rows = self.usage_after(customer, after).await?;
            for row in rows.iter().filter(|row| row.state == UsageState::Counted) {
                let key = LedgerKey { customer, position: row.position };
                for draw in draws_of(key, row)? {
                    *sums.entry(draw.slot).or_default() += draw.amount.millionths();
                }
            }
            let last = rows.len() < self.context.replay_page;
            after = rows.last().map(|row| row.position).or(after);
            if first {
                pages.after = after;
                pages.ended = last;
                pages.read.push_back(rows);
                first = false;
            }
            if last {
                return Ok((pages, sums));
            }
        }
    }

    async fn usage_after(&self, customer: i64, after: Option<Position>) -> Result<Vec<LedgerRow>, StoreError> {
        let (store, page) = (&self.context.store, self.context.replay_page);
        self.context.patiently(|| store.usage_after(self.partition, customer, after, page)).await
    }

    fn fold_new(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        new: &New,
        course: &mut Course<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) {
        let mut draws = std::mem::take(&mut self.draws);
        draws.clear();
        if new.state == UsageState::Counted {
            let usage = batch.unpacked(new.at);
            account.fold(&self.context.calendar, &usage, Some(new.at), &mut self.waterfall, &mut draws);
            draft.applied.replayed_events += 1;
            course.add(&draws, -1);
        }
        self.add_usage(batch, new, &draws, draft, tail);
        self.draws = draws;
    }

    /// Folds usage of the ledger, and notes its draws where they are others now. True when that is so.
    fn fold_row(
        &mut self,
        account: &mut Account,
        share: &Share<'_>,
        row: &LedgerRow,
        course: &mut Course<'_>,
        draft: &mut Draft,
    ) -> Result<bool, StoreError> {
        let key = LedgerKey { customer: account.customer(), position: row.position };
        let was = || draws_of(key, row);
        if share.taken_back.binary_search_by_key(&row.position, |back| back.key.position).is_ok() {
            if row.state == UsageState::Counted {
                course.add(&was()?, 1);
            }
            return Ok(true);
        }
        let released = share.released.binary_search_by_key(&row.position, |released| released.key.position);
        let released = released.ok().map(|at| share.released[at].cause);
        if row.state != UsageState::Counted && released.is_none() {
            return Ok(false);
        }
        let usage = read(key, row)?;
        account.fold(&self.context.calendar, &usage, released, &mut self.waterfall, &mut self.draws);
        draft.applied.replayed_events += 1;
        self.packed.clear();
        packed::pack_draws(&self.draws, &mut self.packed);
        let changed = self.packed != row.draws || released.is_some();
        if changed {
            course.add(&was()?, 1);
            course.add(&self.draws, -1);
            let state = UsageState::Counted;
            draft.commit.usage_changes.push(UsageChange { key, state, draws: self.packed.clone() });
        }
        Ok(changed)
    }

    /// Finds the last usage of the lines that the replay saw none of, before the place where it began.
    async fn find_lines(&self, account: &mut Account, from: Position) -> Result<(), StoreError> {
        let customer = account.customer();
        let mut before = Some(from);
        let mut missing = account.lines_to_find();
        while let (false, Some(place)) = (missing.is_empty(), before) {
            let (store, page) = (&self.context.store, self.context.replay_page);
            let find = || store.usage_before(self.partition, customer, place, page);
            let rows = self.context.patiently(find).await?;
            for row in rows.iter().filter(|row| row.state == UsageState::Counted) {
                let key = LedgerKey { customer, position: row.position };
                let usage = read(key, row)?;
                if let Ok(at) = missing.binary_search(&usage.upi) {
                    account.found_line(&usage);
                    missing.remove(at);
                }
            }
            before = rows.last().filter(|_| rows.len() == page).map(|row| row.position);
        }
        Ok(())
    }
}

/// The rows of the ledger from a place on, page by page; the first page is there already.
struct Pages {
    read: VecDeque<Vec<LedgerRow>>,
    after: Option<Position>,
    ended: bool,
}

impl Pages {
    async fn next(&mut self, partition: &Partition, customer: i64) -> Result<Option<Vec<LedgerRow>>, StoreError> {
        if let Some(rows) = self.read.pop_front() {
            return Ok(Some(rows));
        }
        if self.ended {
            return Ok(None);
        }
        let rows = partition.usage_after(customer, self.after).await?;
        self.ended = rows.len() < partition.context.replay_page;
        self.after = rows.last().map(|row| row.position).or(self.after);
        Ok(Some(rows))
    }
}
