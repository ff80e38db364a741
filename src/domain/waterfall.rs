//! The waterfall: how one event runs through the buckets it qualifies for (`domain.md section 5`).
//!
//! This is arithmetic over buckets already found and put in order. Finding them is the account's business, and so is
//! what their remaining becomes.

use super::facts::{AssignmentKey, Position, Usage};
use super::image::BucketKey;
use super::quantity::Quantity;
use super::time::Date;
use super::window::Window;

/// A bucket that an event qualifies for, and what the waterfall must know of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The bucket's place in its account, if it has one.
    pub(super) bucket: Option<usize>,
    /// The places of its assignment in the account and of its component in the plan.
    pub(super) component: (usize, usize),
    /// Its dates; within a level the one that expires first is drawn first.
    pub(super) window: Window,
    /// Since when its assignment holds.
    pub(super) start_date: Date,
    /// Whose it is.
    pub(super) assignment: AssignmentKey,
    /// Of which component.
    pub(super) component_id: i64,
    /// Whether it is money.
    pub(super) by_value: bool,
    /// The plan's `maxPerEventQuantity`.
    pub(super) cap: Option<Quantity>,
    /// What is left in it.
    pub(super) remaining: Quantity,
    /// The greatest position among the events that drew from it.
    pub(super) mark: Option<Position>,
}

impl Candidate {
    /// How the bucket is known.
    pub(super) fn key(&self) -> BucketKey {
        let Candidate { assignment, component_id: component, window, .. } = *self;
        BucketKey { assignment, component, window_start: window.start }
    }

    /// The order in which buckets are drawn.
    fn rank(&self) -> impl Ord + use<> {
        let AssignmentKey { level, id } = self.assignment;
        (level, self.window.expiry, self.start_date, id, self.component_id, self.window.start)
    }

    /// Whether taking what it has of `want` gives what a fold of all usage in its order would give: it has room for all
    /// that is wanted, so that no one was or will be turned away; or no event after this one drew from it.
    fn is_exact(&self, position: Position, want: Quantity) -> bool {
        self.remaining >= want || self.mark.is_none_or(|mark| position > mark)
    }
}

/// What an event takes from a candidate, or wanted beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Take {
    /// The candidate's place among the others.
    pub(super) candidate: usize,
    /// How much; never nothing.
    pub(super) amount: Quantity,
}

/// Scratch space for one event after another, so that drawing allocates nothing.
#[derive(Debug, Default)]
pub struct Waterfall {
    pub(super) candidates: Vec<Candidate>,
    pub(super) takes: Vec<Take>,
    /// What the event at hand wanted of candidates beyond what they had.
    pub(super) turned_away: Vec<Take>,
    /// What the event at hand took of assignments that have a cap.
    capped: Vec<(AssignmentKey, Quantity)>,
    /// What is not included of the event at hand.
    pub(super) left: Left,
}

/// What is left of an event once it ran through its buckets: usage that is not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Of its quantity.
    pub open: Quantity,
    /// Of its price.
    pub cost: Quantity,
}

impl Left {
    /// Whether all of it is included.
    pub fn is_nothing(self) -> bool {
        self.open.is_zero() && self.cost.is_zero()
    }
}

/// How sure a waterfall must be of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The events come in the order of section 5: what is left is theirs.
    Kept,
    /// The event may be earlier than others that drew: only what cannot depend on it is taken.
    Unknown,
}

impl Waterfall {
    /// Runs `usage` through the candidates, filling `takes`. False when the order of events matters and is not kept:
    /// then nothing may be taken.
    pub(super) fn run(&mut self, usage: &Usage<'_>, order: Order) -> bool {
        let Waterfall { candidates, takes, turned_away, capped, left } = self;
        candidates.sort_unstable_by_key(Candidate::rank);
        takes.clear();
        turned_away.clear();
        capped.clear();
        let (mut open, mut cost) = (usage.quantity, usage.price);
        for (place, candidate) in candidates.iter().enumerate() {
            if open.is_zero() && cost.is_zero() {
                break;
            }
            let want = if candidate.by_value { cost } else { open.min(cap_left(candidate, capped)) };
            if want.is_zero() {
                continue;
            }
            if order == Order::Unknown && !candidate.is_exact(usage.position, want) {
                return false;
            }
            let take = want.min(candidate.remaining);
            if take < want {
                turned_away.push(Take { candidate: place, amount: want.less(take) });
            }
            if take.is_zero() {
                continue;
            }
            takes.push(Take { candidate: place, amount: take });
            if candidate.by_value {
                let rest = cost.less(take);
                open = open.share(rest, cost);
                cost = rest;
            } else {
                let rest = open.less(take);
                cost = cost.share(rest, open);
                open = rest;
                note_cap(candidate, take, capped);
            }
        }
        *left = Left { open, cost };
        true
    }
}

/// What is left of `maxPerEventQuantity` for the event at hand.
fn cap_left(candidate: &Candidate, capped: &[(AssignmentKey, Quantity)]) -> Quantity {
    let Some(cap) = candidate.cap else { return Quantity::from_millionths(i64::MAX) };
    let taken = capped.iter().find(|(key, _)| *key == candidate.assignment).map_or(Quantity::ZERO, |(_, taken)| *taken);
    cap.less(taken)
}

/// Notes what the event took against its assignment's cap.
fn note_cap(candidate: &Candidate, take: Quantity, capped: &mut Vec<(AssignmentKey, Quantity)>) {
    if candidate.cap.is_none() {
        return;
    }
    match capped.iter_mut().find(|(key, _)| *key == candidate.assignment) {
        Some((_, taken)) => *taken = Quantity::from_millionths(taken.millionths() + take.millionths()),
        None => capped.push((candidate.assignment, take)),
    }
}
