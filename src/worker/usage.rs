//! The usage and reversals of a batch against what the ledger knows: which is new, which a duplicate, which a conflict,
//! and what counts no more (`domain.md section 3`).
//!
//! The batch's usage is sorted by customer, position and arrival. Usage later than all known usage of its customer is
//! new without a look; the rest are suspects, looked up all at once. What the new usage draws is decided afterwards.

use rustc_hash::{FxHashMap, FxHashSet};

use super::batch::{Batch, BatchUsage, Input};
use super::partition::{Draft, Partition, account_of};
use super::runs::Released;
use crate::domain::{Account, Outcome, Reason, Refusal, UsageState, packed};
use crate::events::shown;
use crate::store::{LedgerKey, LedgerRow, ReversalRow, StoreError};

/// Ledger rows by their keys.
pub(super) type Known = FxHashMap<LedgerKey, LedgerRow>;

/// Usage that is new to the ledger.
#[derive(Debug)]
pub(super) struct New {
    /// Its place in the batch's usage; also its number as a cause.
    pub(super) at: u32,
    /// Whether it counts.
    pub(super) state: UsageState,
    outcome: Outcome,
}

/// Usage of the ledger that counts no more.
#[derive(Debug)]
pub(super) struct TakenBack {
    pub(super) key: LedgerKey,
    /// The row as it was.
    pub(super) row: LedgerRow,
    /// The reversal's number as a cause.
    pub(super) cause: u32,
}

/// What a batch's usage and reversals change, each in order of customer and position.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) new: Vec<New>,
    pub(super) taken_back: Vec<TakenBack>,
    pub(super) released: Vec<Released>,
}

impl Partition {
    /// Judges every usage record and reversal of the batch, gives each its outcome, and says what changes.
    pub(super) async fn judge(
        &self,
        batch: &Batch,
        accounts: &mut [Account],
        draft: &mut Draft,
    ) -> Result<Judged, StoreError> {
        let mut known = self.known_usage(batch, accounts).await?;
        let mut judged = Judged { new: self.judge_usage(batch, accounts, &known, draft), ..Judged::default() };
        judge_reversals(batch, accounts, &mut known, &mut judged, draft);
        for new in &judged.new {
            draft.applied.outcomes.add(Input::Usage, new.outcome);
            let usage = &batch.usage[new.at as usize];
            match new.state {
                UsageState::Counted => {
                    draft.totals.counted += 1;
                    draft.totals.quantity[usage.charging_type.number() as usize] +=
                        i128::from(usage.quantity.millionths());
                }
                UsageState::Held => draft.totals.held += 1,
                UsageState::Reversed | UsageState::HeldReversed => draft.totals.reversed += 1,
            }
        }
        judged.taken_back.sort_unstable_by_key(|back| back.key);
        for back in &judged.taken_back {
            draft.totals.reversed += 1;
            if back.row.state == UsageState::Held {
                draft.totals.held -= 1;
                continue;
            }
            let usage = read(back.key, &back.row)?;
            draft.totals.counted -= 1;
            draft.totals.quantity[usage.charging_type.number() as usize] -= i128::from(usage.quantity.millionths());
        }
        Ok(judged)
    }

    /// The ledger rows of all events of the batch that may be known already.
    async fn known_usage(&self, batch: &Batch, accounts: &[Account]) -> Result<Known, StoreError> {
        let mut suspects = Vec::new();
        let mut at = 0;
        for usage in &batch.usage {
            while accounts[at].customer() < usage.key.customer {
                at += 1;
            }
            if may_be_known(&accounts[at], usage.key) {
                suspects.push(usage.key);
            }
        }
        for reversal in &batch.reversals {
            let at = accounts.binary_search_by_key(&reversal.key.customer, Account::customer);
            if at.is_ok_and(|at| may_be_known(&accounts[at], reversal.key)) {
                suspects.push(reversal.key);
            }
        }
        if suspects.is_empty() {
            return Ok(Known::default());
        }
        suspects.sort_unstable();
        suspects.dedup();
        let rows = self.context.patiently(|| self.context.store.known_usage(self.partition, &suspects)).await?;
        let keyed = rows.into_iter().map(|found| {
            let key = LedgerKey { customer: found.customer, position: found.row.position };
            (key, found.row)
        });
        Ok(keyed.collect())
    }

    /// Of all records of one event the first holds; it is new unless the ledger has it.
    fn judge_usage(&self, batch: &Batch, accounts: &mut [Account], known: &Known, draft: &mut Draft) -> Vec<New> {
        let mut all_new: Vec<New> = Vec::with_capacity(batch.usage.len());
        let may_hold = self.bill_runs.any_closed();
        for (at, usage) in batch.usage.iter().enumerate() {
            let before = all_new.last().map(|new| &batch.usage[new.at as usize]);
            let same = if let Some(first) = before.filter(|first| first.key == usage.key) {
                batch.body(first) == batch.body(usage)
            } else if let Some(row) = known.get(&usage.key) {
                packed::without_source(&row.body, row.source == 0) == Some(batch.body(usage))
            } else {
                let account = account_of(accounts, usage.key.customer);
                let reversed = account.take_pending_reversal(usage.key.position);
                if reversed {
                    draft.commit.reversals.push(ReversalRow { key: usage.key, pending: false });
                }
                let holds = || {
                    let date = self.context.calendar.date_of(usage.key.position.start);
                    self.bill_runs.hold(account.billing_cycle(), date)
                };
                let (state, outcome) = if reversed {
                    (UsageState::Reversed, Outcome::Applied)
                } else if may_hold && holds() {
                    (UsageState::Held, Outcome::Held)
                } else {
                    (UsageState::Counted, Outcome::Counted)
                };
                all_new.push(New { at: u32::try_from(at).expect("a batch is bounded"), state, outcome });
                continue;
            };
            if same {
                draft.applied.outcomes.add(Input::Usage, Outcome::Duplicate);
            } else {
                self.refuse(batch, usage.origin, conflict(batch, usage), draft);
            }
        }
        all_new
    }
}

/// Judges the reversals in their order of arrival.
fn judge_reversals(batch: &Batch, accounts: &mut [Account], known: &mut Known, judged: &mut Judged, draft: &mut Draft) {
    for (at, reversal) in batch.reversals.iter().enumerate() {
        let key = reversal.key;
        let new = judged.new.binary_search_by_key(&key, |new| batch.usage[new.at as usize].key);
        let (applied, pending) = if let Ok(new) = new {
            let new = &mut judged.new[new];
            let takes_back = matches!(new.state, UsageState::Counted | UsageState::Held);
            if takes_back {
                if batch.usage[new.at as usize].origin > reversal.origin {
                    // Already reversed when it came.
                    (new.state, new.outcome) = (UsageState::Reversed, Outcome::Applied);
                } else {
                    new.state = reversed(new.state);
                }
            }
            (takes_back, false)
        } else if let Some(row) = known.get_mut(&key) {
            let takes_back = matches!(row.state, UsageState::Counted | UsageState::Held);
            if takes_back {
                let cause = u32::try_from(batch.usage.len() + at).expect("a batch is bounded");
                judged.taken_back.push(TakenBack { key, row: row.clone(), cause });
                row.state = reversed(row.state);
            }
            (takes_back, false)
        } else {
            (account_of(accounts, key.customer).add_pending_reversal(key.position), true)
        };
        let outcome = if applied { Outcome::Applied } else { Outcome::Duplicate };
        draft.applied.outcomes.add(Input::Usage, outcome);
        if applied {
            draft.commit.reversals.push(ReversalRow { key, pending });
        }
    }
    // A reversal whose event comes later in the same batch was never pending for a store.
    let mut last = FxHashSet::default();
    let reversals = &mut draft.commit.reversals;
    reversals.reverse();
    reversals.retain(|row| last.insert(row.key));
}

/// What becomes of usage that is reversed.
pub(super) fn reversed(state: UsageState) -> UsageState {
    if state == UsageState::Held { UsageState::HeldReversed } else { UsageState::Reversed }
}

/// Whether the ledger may have this event: it has nothing later than the account's latest usage.
fn may_be_known(account: &Account, key: LedgerKey) -> bool {
    account.latest_usage().is_some_and(|latest| key.position.start <= latest)
}

fn conflict(batch: &Batch, usage: &BatchUsage) -> Refusal {
    let source = &batch.sources[usage.source as usize];
    let id = packed::unpack(usage.key.position, batch.body(usage)).map_or("", |usage| usage.id);
    let detail = format!(
        "customerId: {}, startTime: {}: the event with source \"{source}\" and id \"{id}\" is known with other data",
        usage.key.customer,
        usage.key.position.start,
        source = shown(source),
        id = shown(id)
    );
    Refusal::new(Reason::Conflict, detail)
}

/// A ledger row's usage.
pub(super) fn read(key: LedgerKey, row: &LedgerRow) -> Result<crate::domain::Usage<'_>, StoreError> {
    packed::unpack(key.position, &row.body).ok_or_else(|| unreadable(key))
}

/// The error for a ledger row that this program cannot read.
pub(super) fn unreadable(key: LedgerKey) -> StoreError {
    StoreError::Failed(format!(
        "the ledger row of customer {} at {} has a form that this version cannot read; run the version that wrote it",
        key.customer, key.position.start
    ))
}
