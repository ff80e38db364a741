//! What the product knows of the world, and nothing else: no I/O, no clock, no async, no SQL.
//!
//! [`Account`] holds one customer's facts and buckets and says what a new fact changes; the rest of this module are the
//! words it is written in. Everything here is a function of its arguments, so that tests, rebuilds and explanations run
//! the very code of the worker.

mod account;
mod alert;
mod bill_runs;
mod calendar;
mod facts;
mod image;
pub mod packed;
mod partitioner;
mod qualify;
mod quantity;
mod reason;
mod refold;
#[cfg(test)]
pub(crate) mod samples;
pub mod standing;
mod threshold;
mod time;
mod totals;
mod waterfall;
mod window;

pub use account::{Account, Changes, SlotSums, Taken};
pub use alert::Alert;
pub use bill_runs::{BillRuns, RunChange, RunFact, RunTaken};
pub use calendar::{Calendar, UnknownTimeZone};
pub use facts::{
    Assignment, AssignmentKey, BillRun, ChargingType, Component, CustomerFact, DialString, EventKey, Frequency,
    Inventory, Level, Plan, Position, Reference, Reversed, RunStatus, Usage,
};
pub use image::{
    AccountImage, AssignmentRow, BillRunRow, BucketKey, BucketRow, CustomerRow, Draw, LastUsage, LineRow, NoBucketKey,
    UsageState,
};
pub use partitioner::Partitioner;
pub use quantity::Quantity;
pub use reason::{Outcome, Reason, Refusal};
pub use refold::{BucketDifference, LineDifference, Refold, Untouched};
pub use standing::{StandingRow, StoredPart, StoredRow};
pub use threshold::{Threshold, Turn, effective, turns};
pub use time::{Date, Instant};
pub use totals::{Totals, decimal};
pub use waterfall::{Left, Waterfall};
pub use window::Window;
