//! Corners that are only seen over several commits of a history: what was emptied and is met again, what goes and comes
//! back.

use std::collections::{BTreeMap, BTreeSet};

use super::Corners;
use crate::model::{Balances, BucketKey};
use crate::play::Step;

/// What earlier commits of the history at hand left behind.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    /// Buckets emptied by late usage that drew before the last event there: by which place in the order.
    emptied: BTreeMap<BucketKey, (i64, u128)>,
    /// Buckets that were drawn when the facts gave them no more.
    gone: BTreeSet<BucketKey>,
}

fn drawn(balances: &Balances, key: &BucketKey) -> bool {
    balances.buckets.get(key).is_some_and(|bucket| bucket.remaining != bucket.component.allowance)
}

impl Corners {
    pub(super) fn note_meetings(&mut self, step: &Step<'_>) {
        if step.is_last {
            self.meetings = Meetings::default();
            return;
        }
        let (old, new) = step.balances;
        let counted: Vec<_> = new.draws.iter().filter(|(event, _)| !old.draws.contains_key(event)).collect();
        for (event, _) in &counted {
            let usage = &step.known.1.usage[*event];
            let between = self.meetings.emptied.iter().any(|(key, late)| {
                let last = old.buckets.get(key).and_then(|bucket| bucket.last);
                let empty = old.buckets.get(key).is_some_and(|bucket| bucket.remaining == 0);
                empty
                    && new.buckets.contains_key(key)
                    && new.qualifies(usage, key)
                    && *late < event.1
                    && Some(event.1) < last
            });
            self.met("5: between the late event that emptied a bucket and its last", between);
        }
        for (event, draws) in &counted {
            for (key, _) in *draws {
                let was = old.buckets.get(key);
                let emptied = was.is_some_and(|was| was.remaining > 0 && was.last > Some(event.1));
                if emptied && new.buckets[key].remaining == 0 {
                    self.met("5: a bucket emptied by a late event", true);
                    self.meetings.emptied.insert(*key, event.1);
                }
            }
        }
        let went = old.buckets.keys().filter(|key| drawn(old, key) && !new.buckets.contains_key(key));
        self.meetings.gone.extend(went);
        let back = self.meetings.gone.iter().any(|key| drawn(new, key));
        self.met("7: a drawn bucket went and came back", back);
        self.meetings.gone.retain(|key| !drawn(new, key));
    }
}
