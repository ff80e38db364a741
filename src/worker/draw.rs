//! What the usage of a batch draws: by the fast path while the order of arrival cannot matter, else by a replay of the
//! customer's ledger (`domain.md section 5`).

use rustc_hash::FxHashSet;

use super::batch::Batch;
use super::partition::{Draft, Partition};
use super::runs::Released;
use super::usage::{Judged, New, TakenBack, read, reversed, unreadable};
use crate::domain::{Account, Draw, UsageState, packed};
use crate::store::{LedgerKey, LedgerRow, NewUsage, StoreError, UsageChange};

/// One customer's share of a batch.
struct Share<'a> {
    new: &'a [New],
    taken_back: &'a [TakenBack],
    released: &'a [Released],
}

/// Bytes of the commit that follow the batch's packed usage.
struct Tail {
    start: u32,
    bytes: Vec<u8>,
}

impl Tail {
    fn end(&self) -> u32 {
        self.start + u32::try_from(self.bytes.len()).expect("a batch is bounded")
    }
}

impl Partition {
    /// Draws what the batch's new usage takes, gives back what it takes back, and puts both into the commit.
    pub(super) async fn draw(
        &mut self,
        batch: &Batch,
        accounts: &mut [Account],
        unsettled: &FxHashSet<i64>,
        judged: &Judged,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let start = u32::try_from(batch.bytes.len()).expect("a batch is bounded");
        let mut tail = Tail { start, bytes: Vec::with_capacity(judged.new.len() * 8) };
        draft.commit.usage.reserve(judged.new.len());
        let (mut new, mut taken_back) = (judged.new.as_slice(), judged.taken_back.as_slice());
        let mut released = judged.released.as_slice();
        for account in accounts {
            let customer = account.customer();
            let share = Share {
                new: split_front(&mut new, |new| batch.usage[new.at as usize].key.customer == customer),
                taken_back: split_front(&mut taken_back, |back| back.key.customer == customer),
                released: split_front(&mut released, |released| released.key.customer == customer),
            };
            let mark = (draft.commit.usage.len(), draft.commit.usage_changes.len(), tail.bytes.len());
            let in_order = unsettled.contains(&customer) || !share.released.is_empty();
            if in_order || !self.draw_fast(batch, account, &share, draft, &mut tail)? {
                draft.commit.usage.truncate(mark.0);
                draft.commit.usage_changes.truncate(mark.1);
                tail.bytes.truncate(mark.2);
                self.replay(batch, account, &share, draft, &mut tail).await?;
            }
        }
        draft.commit.bytes = tail.bytes;
        Ok(())
    }

    /// False when something of it needs a replay.
    fn draw_fast(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<bool, StoreError> {
        for back in share.taken_back {
            if back.row.state == UsageState::Counted {
                let usage = read(back.key, &back.row)?;
                if !account.reverse(&usage, &draws_of(back.key, &back.row)?, back.cause) {
                    return Ok(false);
                }
            }
            draft.commit.usage_changes.push(taken_back(back));
        }
        let mut draws = std::mem::take(&mut self.draws);
        let mut fast = true;
        for new in share.new {
            draws.clear();
            if new.state == UsageState::Counted {
                let usage = batch.unpacked(new.at);
                fast = account.count(&self.context.calendar, &usage, new.at, &mut self.waterfall, &mut draws);
                if !fast {
                    break;
                }
            }
            self.add_usage(batch, new, &draws, draft, tail);
            account.note_usage(batch.usage[new.at as usize].key.position.start);
        }
        self.draws = draws;
        Ok(fast)
    }

    /// Folds all usage of the customer that counts, new usage in its place, in order.
    async fn replay(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<(), StoreError> {
        draft.applied.replays += 1;
        account.begin_replay();
        for back in share.taken_back {
            account.note_reversed(back.key.position, &draws_of(back.key, &back.row)?, back.cause);
            draft.commit.usage_changes.push(taken_back(back));
        }
        let customer = account.customer();
        let mut new = share.new;
        let mut after = None;
        loop {
            let page = self.context.replay_page;
            let store = &self.context.store;
            let rows = self.context.patiently(|| store.usage_after(self.partition, customer, after, page)).await?;
            for row in &rows {
                let earlier = |new: &New| batch.usage[new.at as usize].key.position < row.position;
                for new in split_front(&mut new, earlier) {
                    self.fold_new(batch, account, new, draft, tail);
                }
                let gone = share.taken_back.binary_search_by_key(&row.position, |back| back.key.position).is_ok();
                let released = share.released.binary_search_by_key(&row.position, |released| released.key.position);
                let released = released.ok().map(|at| share.released[at].cause);
                if (row.state == UsageState::Counted && !gone) || released.is_some() {
                    self.fold_known(account, row, released, draft)?;
                }
            }
            after = rows.last().map(|row| row.position);
            if rows.len() < page {
                break;
            }
        }
        for new in new {
            self.fold_new(batch, account, new, draft, tail);
        }
        for new in share.new {
            account.note_usage(batch.usage[new.at as usize].key.position.start);
        }
        Ok(())
    }

    fn fold_new(&mut self, batch: &Batch, account: &mut Account, new: &New, draft: &mut Draft, tail: &mut Tail) {
        let mut draws = std::mem::take(&mut self.draws);
        draws.clear();
        if new.state == UsageState::Counted {
            let usage = batch.unpacked(new.at);
            account.fold(&self.context.calendar, &usage, Some(new.at), &mut self.waterfall, &mut draws);
            draft.applied.replayed_events += 1;
        }
        self.add_usage(batch, new, &draws, draft, tail);
        self.draws = draws;
    }

    /// Folds usage of the ledger, and notes its draws where they are others now. `released` is its number as a cause
    /// where it counts since this batch only.
    fn fold_known(
        &mut self,
        account: &mut Account,
        row: &LedgerRow,
        released: Option<u32>,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let key = LedgerKey { customer: account.customer(), position: row.position };
        let usage = read(key, row)?;
        account.fold(&self.context.calendar, &usage, released, &mut self.waterfall, &mut self.draws);
        draft.applied.replayed_events += 1;
        self.packed.clear();
        packed::pack_draws(&self.draws, &mut self.packed);
        if self.packed != row.draws || released.is_some() {
            let state = UsageState::Counted;
            draft.commit.usage_changes.push(UsageChange { key, state, draws: self.packed.clone() });
        }
        Ok(())
    }

    /// Puts new usage and what it drew into the commit.
    fn add_usage(&self, batch: &Batch, new: &New, draws: &[Draw], draft: &mut Draft, tail: &mut Tail) {
        let usage = &batch.usage[new.at as usize];
        let text = &batch.sources[usage.source as usize];
        let source = self.source_number(text, &mut draft.commit);
        let mut body = usage.body.clone();
        if source == 0 {
            // A source without a number of its own stands behind the packed usage.
            let start = tail.end();
            packed::pack_with_source(batch.body(usage), text, &mut tail.bytes);
            body = start..tail.end();
        }
        let start = tail.end();
        packed::pack_draws(draws, &mut tail.bytes);
        draft.commit.usage.push(NewUsage { key: usage.key, state: new.state, source, body, draws: start..tail.end() });
    }
}

/// The ledger row of usage that counts no more.
fn taken_back(back: &TakenBack) -> UsageChange {
    UsageChange { key: back.key, state: reversed(back.row.state), draws: Vec::new() }
}

fn draws_of(key: LedgerKey, row: &LedgerRow) -> Result<Vec<Draw>, StoreError> {
    packed::unpack_draws(&row.draws).ok_or_else(|| unreadable(key))
}

/// Splits the leading elements that fit off a slice.
fn split_front<'a, T>(slice: &mut &'a [T], fits: impl Fn(&T) -> bool) -> &'a [T] {
    let length = slice.iter().take_while(|element| fits(element)).count();
    let (front, rest) = slice.split_at(length);
    *slice = rest;
    front
}
