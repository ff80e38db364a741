//! The laws that balances obey, over made-up histories of facts.
//!
//! A history is played to the worker, batch by batch, in a made-up order with duplicates, conflicts, restarts and a store
//! that fails; after each commit all that the store holds is held against a plain fold that shares no code with the
//! product (`model`, `calendar`): the buckets, what each event drew, lines, totals, what became of each record, and the
//! alerts. The real stores then play the same beside the one in memory, and must answer alike. `CASES=5000 cargo test --test laws` plays more histories than the usual few.
#![expect(clippy::unwrap_used, reason = "a lock in a test")]

mod alerts;
mod balances;
mod both;
mod calendar;
mod corners;
mod extremes;
mod facts;
mod history;
mod json;
mod model;
mod play;
mod questions;
mod repairs;
mod runs;
mod store;

use std::cell::RefCell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::both::Real;
use crate::corners::Corners;
use crate::history::History;

/// A history on a real store takes a while, and shrinking one plays it again each time.
const SHRINKS_ON_REAL: u32 = 100;

/// Plays as many histories as `CASES` says, or else the `usual` number, and shows the smallest one that breaks the law,
/// found within so many `shrinks`.
fn for_all_histories(usual: u32, shrinks: u32, law: impl Fn(&History) -> Result<(), TestCaseError>) {
    for_all(&history::history(), usual, shrinks, law);
}

fn for_all<S: Strategy>(strategy: &S, usual: u32, shrinks: u32, law: impl Fn(&S::Value) -> Result<(), TestCaseError>) {
    let cases = std::env::var("CASES").map_or(usual, |cases| cases.parse().expect("CASES is a number"));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
    match TestRunner::new(config).run(strategy, |history| law(&history)) {
        Ok(()) => {}
        Err(TestError::Fail(why, history)) => panic!("{why}\nby the history {history:#?}"),
        Err(TestError::Abort(why)) => panic!("no histories: {why}"),
    }
}

#[test]
fn balances_and_alerts_are_the_plain_folds_whatever_the_order() {
    let corners = RefCell::new(Corners::default());
    for_all_histories(400, 5_000, |history| {
        play::play(history, None, |step| {
            corners.borrow_mut().note(step);
            balances::check(step)?;
            alerts::check(step)?;
            runs::check(step)?;
            repairs::check(step)
        })
        .map(drop)
    });
    corners.borrow().show();
}

#[test]
fn what_is_spoiled_in_a_store_is_found_and_repaired() {
    for_all(&(history::history(), repairs::damages()), 150, 5_000, |(history, damages)| {
        repairs::repair(history, damages)
    });
}

#[test]
fn nothing_panics_or_wraps_at_the_ends_of_what_can_be_said() {
    let ends = extremes::Ends::default();
    for_all(&extremes::extremes(), 1_000, 5_000, |extremes| extremes::check(extremes, None, &ends));
    ends.show();
}

#[test]
fn both_stores_keep_the_ends_of_what_can_be_said() {
    for real in [Real::Sqlite, Real::Postgres] {
        let ends = extremes::Ends::default();
        for_all(&extremes::extremes(), 20, SHRINKS_ON_REAL, |extremes| extremes::check(extremes, Some(real), &ends));
    }
}

#[test]
fn sqlite_keeps_what_the_store_in_memory_keeps() {
    for_all_histories(40, SHRINKS_ON_REAL, |history| play::play(history, Some(Real::Sqlite), |_| Ok(())).map(drop));
}

#[test]
fn postgres_keeps_what_the_store_in_memory_keeps() {
    for_all_histories(25, SHRINKS_ON_REAL, |history| play::play(history, Some(Real::Postgres), |_| Ok(())).map(drop));
}
