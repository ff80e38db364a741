//! The law of orders: the same facts in another order, in other batches and with other mishaps come to the same balances.
//! It knows nothing of what they must be.

use headroom::domain::Totals;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::calendar::Calendar;
use crate::facts::Fact;
use crate::history::{self, Around, History};
use crate::model::{Known, Outcome};
use crate::play;
use crate::repairs::View;

/// How the second playing differs: by what records are put in order, how many make a batch, and what happens around it.
pub(crate) type Other = (Vec<u32>, Vec<(usize, Around)>, usize);

pub(crate) fn other() -> impl Strategy<Value = Other> {
    (vec(any::<u32>(), 60), history::batches(), 1..8usize)
}

/// Plays a history twice.
pub(crate) fn check(history: &History, (order, batches, replay_page): &Other) -> Result<(), TestCaseError> {
    let mut first = history.clone();
    first.records = without_order(history);
    let mut second = first.clone();
    let mut ranked: Vec<_> = second.records.into_iter().zip(order).collect();
    ranked.sort_by_key(|(_, rank)| **rank);
    second.records = ranked.into_iter().map(|(record, _)| record).collect();
    second.batches.clone_from(batches);
    second.replay_page = *replay_page;
    let (one, other) = (play::play(&first, None, |_| Ok(()))?, play::play(&second, None, |_| Ok(()))?);
    prop_assert_eq!(View::of(&one), View::of(&other));
    // What was raised on the way there depends on the way.
    let lasting = |totals: Totals| Totals { crossed: 0, recovered: 0, ..totals };
    prop_assert_eq!(lasting(one.totals), lasting(other.totals));
    Ok(())
}

/// The records without those of which order decides: conflicts, and bill runs, which hold usage.
fn without_order(history: &History) -> Vec<(Fact, crate::json::Style)> {
    let (mut known, calendar) = (Known::default(), Calendar::of(history.zone));
    let mut records = history.records.clone();
    records.retain(|(fact, _)| !matches!(fact, Fact::BillRun { .. }));
    records.retain(|(fact, _)| !matches!(known.take_all(&[fact], &calendar, |_| false)[0], Outcome::DeadLetter(_)));
    records
}
