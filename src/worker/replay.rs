//! The replay of a customer's usage, from the first place in the order at which the batch changes something.
//!
//! The ledger is read from there on twice: once to sum up what its usage drew, which says what the buckets held at that
//! place, and once to fold it again, new usage in its place. What fits one page is read once only. The fold ends as soon
//! as nothing later can draw otherwise; in memory there is never more than a page, beside the rows that changed.
//!
//! A replay goes on page by page until its pace bids it stop; whoever drives it says what happens in between.

use std::collections::VecDeque;
use std::time::Instant as Clock;

use super::batch::Batch;
use super::draw::{Share, Tail, draws_of, split_front, taken_back};
use super::partition::{Draft, Partition};
use super::usage::{New, read};
use crate::domain::{Account, Draw, Position, SlotSums, UsageState, packed};
use crate::store::{LedgerKey, LedgerRow, OfCustomer, StoreError, Unfinished};

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replay {
    /// Where it began.
    from: Position,
    /// What the ledger's usage from there on drew of each bucket, as the account knows it.
    drawn: SlotSums,
    /// While that is being summed up: the last place read, and the place before which the sum ends, if not at the end.
    summing: Option<(Option<Position>, Option<Position>)>,
    /// The lines of usage that begins or ceases to count, sorted.
    lines: Vec<i64>,
    pages: Pages,
    /// How much of the new usage is folded.
    folded: usize,
    /// Once all is folded: the lines, sorted, whose last usage lies before the place where it began, and how far back they
    /// were looked for.
    missing: Option<(Vec<i64>, Position)>,
    /// The last place at which the batch changes what counts.
    last_change: Option<Position>,
    /// How much more each bucket has than it had at the same place before.
    more: SlotSums,
    /// Whether it is worth asking for the end: what differs has changed since it was asked last.
    due: bool,
    /// Ledger rows that draw otherwise now.
    pub(super) changes: Vec<OfCustomer<LedgerRow>>,
}

impl Replay {
    fn add(&mut self, draws: &[Draw], sign: i64) {
        for draw in draws {
            *self.more.entry(draw.slot).or_default() += sign * draw.amount.millionths();
        }
    }

    /// What a store must know of it before it writes the first of its changes.
    pub(super) fn unfinished(&self) -> Unfinished {
        let draw =
            |(slot, sum): (&i32, &i64)| Draw { slot: *slot, amount: crate::domain::Quantity::from_millionths(*sum) };
        let mut drawn: Vec<Draw> = self.drawn.iter().map(draw).collect();
        drawn.sort_unstable_by_key(|draw| draw.slot);
        Unfinished { from: self.from, drawn }
    }
}

/// When a replay stops for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// At this time.
    pub(super) until: Clock,
    /// Once so many rows have changed.
    pub(super) changes: usize,
}

impl Pace {
    fn is_over(&self, replay: &Replay) -> bool {
        Clock::now() >= self.until || replay.changes.len() >= self.changes
    }
}

impl Partition {
    /// Begins to fold the customer's usage again as far as the batch changes what it draws; `unfinished` is what an
    /// earlier fold left. `None` when nothing that counts is new and nothing counts no more: then all is done.
    pub(super) fn begin_replay(
        &self,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        unfinished: Option<&Unfinished>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<Option<Replay>, StoreError> {
        draft.applied.replays += 1;
        let counted = || share.new.iter().filter(|new| new.state == UsageState::Counted);
        let position_of = |new: &New| batch.usage[new.at as usize].key.position;
        let changes = || {
            let known = share.taken_back.iter().filter(|back| back.row.state == UsageState::Counted);
            let known = known.map(|back| back.key.position);
            let released = share.released.iter().map(|released| released.key.position);
            counted().map(position_of).chain(known).chain(released)
        };
        let first = changes().chain(share.unsettled.map(Position::first_at));
        let from = first.chain(unfinished.map(|unfinished| unfinished.from)).min();
        for back in share.taken_back {
            draft.commit.usage_changes.push(taken_back(back));
        }
        let Some(from) = from else {
            for new in share.new {
                self.add_usage(batch, new, &[], draft, tail);
                account.note_usage(position_of(new).start);
            }
            return Ok(None);
        };
        let mut lines: Vec<i64> = counted().map(|new| batch.unpacked(new.at).upi).collect();
        for back in share.taken_back {
            lines.push(read(back.key, &back.row)?.upi);
        }
        lines.extend(share.released.iter().map(|released| released.upi));
        lines.sort_unstable();
        lines.dedup();
        let mut drawn = SlotSums::default();
        for draw in unfinished.iter().flat_map(|unfinished| &unfinished.drawn) {
            drawn.insert(draw.slot, draw.amount.millionths());
        }
        // Where other reference facts hold, or the ledger's draws are not those of the buckets, later usage may draw
        // otherwise in ways that sums do not show.
        let in_sums = share.unsettled.is_none() && unfinished.is_none();
        Ok(Some(Replay {
            from,
            drawn,
            summing: Some((from.before(), unfinished.map(|unfinished| unfinished.from))),
            lines,
            pages: Pages { read: VecDeque::new(), after: from.before(), ended: false },
            folded: 0,
            missing: None,
            last_change: if in_sums { changes().max() } else { None },
            more: SlotSums::default(),
            due: true,
            changes: Vec::new(),
        }))
    }

    /// Goes on with a replay, at least by a page; true when all of it is folded. What fits one page is never left half
    /// done.
    #[expect(clippy::too_many_arguments, reason = "a replay works on all that a batch has become")]
    pub(super) async fn replay(
        &mut self,
        replay: &mut Replay,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
        pace: Pace,
    ) -> Result<bool, StoreError> {
        let customer = account.customer();
        loop {
            if let Some((lines, before)) = replay.missing.take() {
                replay.missing = self.find_lines(account, lines, before).await?;
                if replay.missing.is_none() {
                    return Ok(true);
                }
            } else if let Some((after, end)) = replay.summing {
                replay.summing = self.sum_page(replay, customer, after, end).await?.map(|after| (Some(after), end));
                if replay.summing.is_none() {
                    account.begin_replay(replay.from, &replay.drawn, &replay.lines);
                    for back in share.taken_back {
                        account.note_reversed(back.key.position, &draws_of(back.key, &back.row)?, back.cause);
                    }
                }
            } else if let Some(rows) = replay.pages.next(self, customer).await? {
                if self.fold_page(replay, &rows, batch, account, share, draft, tail)? {
                    all_is_folded(replay, batch, account, share);
                    continue;
                }
            } else {
                let rest = &share.new[replay.folded..];
                replay.folded = share.new.len();
                for new in rest {
                    self.fold_new(batch, account, new, replay, draft, tail);
                }
                all_is_folded(replay, batch, account, share);
                continue;
            }
            if (!replay.pages.ended || replay.missing.is_some()) && pace.is_over(replay) {
                return Ok(false);
            }
        }
    }

    /// Adds up what a page of the ledger's usage drew; returns the last place of it unless the sum is complete.
    async fn sum_page(
        &self,
        replay: &mut Replay,
        customer: i64,
        after: Option<Position>,
        end: Option<Position>,
    ) -> Result<Option<Position>, StoreError> {
        if end.is_some_and(|end| end <= replay.from) {
            return Ok(None);
        }
        let rows = self.usage_after(customer, after).await?;
        let ended = rows.len() < self.context.replay_page;
        let before_end = |row: &&LedgerRow| end.is_none_or(|end| row.position < end);
        for row in rows.iter().filter(before_end).filter(|row| row.state == UsageState::Counted) {
            let key = LedgerKey { customer, position: row.position };
            for draw in draws_of(key, row)? {
                *replay.drawn.entry(draw.slot).or_default() += draw.amount.millionths();
            }
        }
        let last = rows.last().map(|row| row.position);
        if after == replay.from.before() {
            replay.pages = Pages { read: VecDeque::new(), after: last.or(after), ended };
            replay.pages.read.push_back(rows);
        }
        Ok(last.filter(|last| !ended && end.is_none_or(|end| *last < end)))
    }

    async fn usage_after(&self, customer: i64, after: Option<Position>) -> Result<Vec<LedgerRow>, StoreError> {
        let (store, page) = (&self.context.store, self.context.replay_page);
        self.context.patiently(|| store.usage_after(self.partition, customer, after, page)).await
    }

    /// Folds a page of the ledger, new usage in its place; true when nothing after it can draw otherwise.
    #[expect(clippy::too_many_arguments, reason = "as for the replay")]
    fn fold_page(
        &mut self,
        replay: &mut Replay,
        rows: &[LedgerRow],
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<bool, StoreError> {
        for row in rows {
            let mut rest = &share.new[replay.folded..];
            let earlier = |new: &New| batch.usage[new.at as usize].key.position < row.position;
            for new in split_front(&mut rest, earlier) {
                replay.folded += 1;
                self.fold_new(batch, account, new, replay, draft, tail);
            }
            replay.due |= self.fold_row(account, share, row, replay, draft)?;
            let past = replay.last_change.is_some_and(|last| row.position >= last) && rest.is_empty();
            if past && replay.due {
                replay.due = false;
                if account.can_end_replay(row.position, &replay.more) {
                    account.end_replay(row.position, &replay.more);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn fold_new(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        new: &New,
        replay: &mut Replay,
        draft: &mut Draft,
        tail: &mut Tail,
    ) {
        let mut draws = std::mem::take(&mut self.draws);
        draws.clear();
        if new.state == UsageState::Counted {
            let usage = batch.unpacked(new.at);
            account.fold(&self.context.calendar, &usage, Some(new.at), &mut self.waterfall, &mut draws);
            draft.applied.replayed_events += 1;
            replay.add(&draws, -1);
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
        replay: &mut Replay,
        draft: &mut Draft,
    ) -> Result<bool, StoreError> {
        let key = LedgerKey { customer: account.customer(), position: row.position };
        let was = || draws_of(key, row);
        if share.taken_back.binary_search_by_key(&row.position, |back| back.key.position).is_ok() {
            if row.state == UsageState::Counted {
                replay.add(&was()?, 1);
            }
            return Ok(true);
        }
        let released = share.released.binary_search_by_key(&row.position, |released| released.key.position);
        let released = released.ok().map(|at| share.released[at].cause);
        if row.state != UsageState::Counted && released.is_none() {
            return Ok(false);
        }
        let usage = read(key, row)?;
        let (calendar, waterfall, draws) = (&self.context.calendar, &mut self.waterfall, &mut self.draws);
        match released {
            Some(cause) => account.fold(calendar, &usage, Some(cause), waterfall, draws),
            None => account.fold_again(calendar, &usage, waterfall, draws),
        }
        draft.applied.replayed_events += 1;
        self.packed.clear();
        packed::pack_draws(&self.draws, &mut self.packed);
        let changed = self.packed != row.draws || released.is_some();
        if changed {
            replay.add(&was()?, 1);
            replay.add(&self.draws, -1);
            let row = row.changed(UsageState::Counted, self.packed.clone());
            let change = OfCustomer { customer: key.customer, row };
            // What counts only now is written with the rest of the batch, never before.
            let changes = if released.is_some() { &mut draft.commit.usage_changes } else { &mut replay.changes };
            changes.push(change);
        }
        Ok(changed)
    }

    /// Looks on a page of the ledger for the last usage of lines that the replay saw none of, before a place. Returns which
    /// are still to be found, and before which place.
    async fn find_lines(
        &self,
        account: &mut Account,
        mut missing: Vec<i64>,
        before: Position,
    ) -> Result<Option<(Vec<i64>, Position)>, StoreError> {
        if missing.is_empty() {
            return Ok(None);
        }
        let customer = account.customer();
        let (store, page) = (&self.context.store, self.context.replay_page);
        let rows = self.context.patiently(|| store.usage_before(self.partition, customer, before, page)).await?;
        for row in rows.iter().filter(|row| row.state == UsageState::Counted) {
            let usage = read(LedgerKey { customer, position: row.position }, row)?;
            if let Ok(at) = missing.binary_search(&usage.upi) {
                account.found_line(&usage);
                missing.remove(at);
            }
        }
        let earliest = rows.last().filter(|_| rows.len() == page && !missing.is_empty()).map(|row| row.position);
        Ok(earliest.map(|earliest| (missing, earliest)))
    }
}

/// Notes that a replay has folded all that it had to; what is left is to look for lines.
fn all_is_folded(replay: &mut Replay, batch: &Batch, account: &mut Account, share: &Share<'_>) {
    for new in share.new {
        account.note_usage(batch.usage[new.at as usize].key.position.start);
    }
    replay.missing = Some((account.lines_to_find(), replay.from));
}

/// The rows of the ledger from a place on, page by page; the first page may be there already.
#[derive(Debug)]
struct Pages {
    read: VecDeque<Vec<LedgerRow>>,
    after: Option<Position>,
    /// Whether the last page is read.
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
