//! What the usage of a batch draws: by the fast path while the order of arrival cannot matter, else by a replay
//! (`domain.md section 5`; how one works is in `replay`).

use std::time::{Duration, Instant as Clock};

use super::batch::Batch;
use super::partition::{Draft, Partition, Prepared};
use super::replay::Pace;
use super::runs::Released;
use super::usage::{Judged, New, TakenBack, read, reversed, unreadable};
use crate::domain::{Account, Draw, Instant, UsageState, packed};
use crate::store::{LedgerKey, LedgerRow, NewUsage, OfCustomer, StoreError};

/// One customer's share of a batch.
pub(super) struct Share<'a> {
    pub(super) new: &'a [New],
    pub(super) taken_back: &'a [TakenBack],
    pub(super) released: &'a [Released],
    /// From when on other reference facts hold, where that changes what known usage draws.
    pub(super) unsettled: Option<Instant>,
}

impl<'a> Share<'a> {
    /// The share of a batch's only customer.
    pub(super) fn whole(judged: &'a Judged, unsettled: Option<Instant>) -> Share<'a> {
        let Judged { new, taken_back, released } = judged;
        Share { new, taken_back, released, unsettled }
    }
}

/// Bytes of the commit that follow the batch's packed usage.
#[derive(Debug)]
pub(super) struct Tail {
    start: u32,
    bytes: Vec<u8>,
}

impl Tail {
    /// An empty one, with room for the draws of so many events.
    pub(super) fn after(batch: &Batch, events: usize) -> Tail {
        let start = u32::try_from(batch.bytes.len()).expect("a batch is bounded");
        Tail { start, bytes: Vec::with_capacity(events * 8) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn end(&self) -> u32 {
        self.start + u32::try_from(self.bytes.len()).expect("a batch is bounded")
    }
}

impl Partition {
    /// Draws what the batch's new usage takes, gives back what it takes back, and puts both into the commit. Replays may take
    /// `pause`, all together; returns the customers for whose replays it is too short. One at least is begun.
    pub(super) async fn draw(
        &mut self,
        batch: &Batch,
        prepared: &mut Prepared,
        pause: Duration,
    ) -> Result<Vec<i64>, StoreError> {
        let Prepared { accounts, unsettled, judged, draft, tail } = prepared;
        draft.commit.usage.reserve(judged.new.len());
        let (mut new, mut taken_back) = (judged.new.as_slice(), judged.taken_back.as_slice());
        let mut released = judged.released.as_slice();
        let (mut long, mut rest) = (Vec::new(), Some(pause));
        for account in accounts {
            let customer = account.customer();
            let share = Share {
                new: split_front(&mut new, |new| batch.usage[new.at as usize].key.customer == customer),
                taken_back: split_front(&mut taken_back, |back| back.key.customer == customer),
                released: split_front(&mut released, |released| released.key.customer == customer),
                unsettled: unsettled.get(&customer).copied(),
            };
            if self.draw_fast(batch, account, &share, draft, tail)? {
                continue;
            }
            let Some(left) = rest else {
                long.push(customer);
                continue;
            };
            let began = Clock::now();
            let Some(mut replay) = self.begin_replay(batch, account, &share, None, draft, tail)? else { continue };
            let pace = Pace { until: began + left, changes: usize::MAX };
            if self.replay(&mut replay, batch, account, &share, draft, tail, pace).await? {
                draft.commit.usage_changes.append(&mut replay.changes);
            } else {
                long.push(customer);
            }
            rest = left.checked_sub(began.elapsed());
        }
        Ok(long)
    }

    /// False when something of it needs a replay; then nothing of it is done.
    pub(super) fn draw_fast(
        &mut self,
        batch: &Batch,
        account: &mut Account,
        share: &Share<'_>,
        draft: &mut Draft,
        tail: &mut Tail,
    ) -> Result<bool, StoreError> {
        if share.unsettled.is_some() || !share.released.is_empty() {
            return Ok(false);
        }
        let mark = (draft.commit.usage.len(), draft.commit.usage_changes.len(), tail.bytes.len());
        let fast = self.try_fast(batch, account, share, draft, tail)?;
        if !fast {
            draft.commit.usage.truncate(mark.0);
            draft.commit.usage_changes.truncate(mark.1);
            tail.bytes.truncate(mark.2);
        }
        Ok(fast)
    }

    fn try_fast(
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

    /// Puts new usage and what it drew into the commit.
    pub(super) fn add_usage(&self, batch: &Batch, new: &New, draws: &[Draw], draft: &mut Draft, tail: &mut Tail) {
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
pub(super) fn taken_back(back: &TakenBack) -> OfCustomer<LedgerRow> {
    OfCustomer { customer: back.key.customer, row: back.row.changed(reversed(back.row.state), Vec::new()) }
}

pub(super) fn draws_of(key: LedgerKey, row: &LedgerRow) -> Result<Vec<Draw>, StoreError> {
    packed::unpack_draws(&row.draws).ok_or_else(|| unreadable(key))
}

/// Splits the leading elements that fit off a slice.
pub(super) fn split_front<'a, T>(slice: &mut &'a [T], fits: impl Fn(&T) -> bool) -> &'a [T] {
    let length = slice.iter().take_while(|element| fits(element)).count();
    let (front, rest) = slice.split_at(length);
    *slice = rest;
    front
}
