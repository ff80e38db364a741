//! An alert as the account raises it (`domain.md section 7`). Its id, its time and its bytes are given later.

use super::facts::{AssignmentKey, ChargingType};
use super::quantity::Quantity;
use super::threshold::{Threshold, Turn};
use super::window::Window;

/// A threshold of a bucket that began or ceased to hold in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Whose balance.
    pub customer: i64,
    /// Which way.
    pub turn: Turn,
    /// Of which assignment.
    pub assignment: AssignmentKey,
    /// The assignment's site or line.
    pub scope: i64,
    /// Of which plan.
    pub plan: i64,
    /// Of which component.
    pub component: i64,
    /// The bucket's dates.
    pub window: Window,
    /// Of what unit.
    pub charging_type: ChargingType,
    /// Whether it is money.
    pub by_value: bool,
    /// What there is in the bucket at first, after the commit.
    pub allowance: Quantity,
    /// What was left before the commit.
    pub remaining_before: Quantity,
    /// What is left after it.
    pub remaining_after: Quantity,
    /// Which threshold.
    pub threshold: Threshold,
    /// The number that the caller gave the event that caused it; `None` where no usage event did.
    pub cause: Option<u32>,
}
