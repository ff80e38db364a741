//! What of an account's buckets need not be in memory between batches: those of long ago.

use super::{Account, Bucket, first_expiry};
use crate::domain::time::Instant;

impl Account {
    /// Lets go of the buckets that may not be drawn from at this instant or later. What is left reaches back as far as it
    /// can. Between batches only.
    pub fn shed(&mut self, keep_from: Instant) {
        if self.first_expiry > keep_from {
            return;
        }
        debug_assert!(self.touched.is_empty(), "no batch is at hand");
        let expiries = self.buckets.iter().filter_map(|bucket| bucket.window).map(|window| window.expiry);
        self.since = self.since.max(expiries.filter(|expiry| *expiry <= keep_from).max());
        self.keep_buckets(|bucket| bucket.window.is_some_and(|window| window.expiry > keep_from));
        self.buckets.shrink_to_fit();
        for component in self.assignments.iter_mut().flat_map(|state| &mut state.components) {
            component.buckets.shrink_to_fit();
        }
    }

    /// Drops all buckets but these. They keep their order, and get new places.
    pub(super) fn keep_buckets(&mut self, keep: impl Fn(&Bucket) -> bool) {
        let mut next = 0;
        let place_of = |bucket: &Bucket| {
            keep(bucket).then(|| {
                next += 1;
                next - 1
            })
        };
        let places: Vec<Option<usize>> = self.buckets.iter().map(place_of).collect();
        self.buckets.retain(keep);
        for component in self.assignments.iter_mut().flat_map(|state| &mut state.components) {
            component.buckets.retain_mut(|(_, place)| places[*place].inspect(|new| *place = *new).is_some());
        }
        self.first_expiry = first_expiry(&self.buckets);
    }
}
