//! Corners of how an event is matched to buckets: qualifiers, products, windows, and the order in which buckets are drawn.

use super::Corners;
use crate::facts::{Component, Frequency, Usage};
use crate::model::{BucketKey, EventKey};
use crate::play::Step;

impl Corners {
    /// What the buckets that new usage drew from ask of it, and the order in which it came to them.
    pub(super) fn note_drawing(&mut self, step: &Step<'_>, event: EventKey, usage: &Usage, draws: &[(BucketKey, i64)]) {
        let new = step.balances.1;
        for (key, _) in draws {
            let plan = &new.assignments[&key.0].plan;
            self.note_qualifiers(&new.buckets[key].component, usage);
            self.met("5: a plan for one product", plan.product.is_some());
            self.met("4: a day's window was drawn", plan.frequency == Frequency::Daily);
            self.met("4: a week's window was drawn", matches!(plan.frequency, Frequency::Weekly(_)));
            self.met("4: a month's window with another anchor was drawn", {
                matches!(plan.frequency, Frequency::Monthly(anchor) if anchor > 1)
            });
        }
        for pair in draws.windows(2) {
            let [one, next] = [&pair[0].0, &pair[1].0];
            let expiry = |key: &BucketKey| new.buckets[key].window.expiry;
            let same_level = one.0.1 == next.0.1;
            self.met("5: two levels in one event", !same_level);
            self.met("5: the earlier expiry first", same_level && expiry(one) < expiry(next));
            let start = |key: &BucketKey| new.assignments[&key.0].start;
            let same_expiry = same_level && expiry(one) == expiry(next);
            self.met("5: of one expiry, the earlier assignment first", same_expiry && start(one) < start(next));
            let other = one.0 != next.0 && start(one) == start(next);
            self.met("5: of one expiry and start, the lower assignment first", same_expiry && other);
            self.met("5: of one assignment, the lower component first", same_expiry && one.0 == next.0);
        }
        let drawn_too = |other: &EventKey| {
            let of_other = &new.draws[other];
            of_other.iter().any(|(bucket, _)| draws.iter().any(|(own, _)| own == bucket))
        };
        let same_start = (event.0, (event.1.0, 0))..(event.0, (event.1.0 + 1, 0));
        let others = new.draws.range(same_start).map(|(other, _)| other).filter(|other| **other != event);
        self.met("5: two events of one instant and bucket", others.into_iter().any(drawn_too));
    }

    fn note_qualifiers(&mut self, component: &Component, usage: &Usage) {
        self.met("5: by timeband", !component.timebands.is_empty());
        let group = usage.group.is_some_and(|group| component.groups.contains(&group));
        self.met("5: by charge group", group);
        let category = usage.category.is_some_and(|category| component.categories.contains(&category));
        self.met("5: by charge group category", category);
        let to = usage.destination.as_deref().unwrap_or_default();
        let dialled = |whole: bool| {
            component.dial_strings.iter().any(|(digits, entire)| {
                *entire == whole && if whole { to == digits } else { to.starts_with(digits.as_str()) && to != digits }
            })
        };
        self.met("5: by how the number begins", dialled(false));
        self.met("5: by the whole number", dialled(true));
        let only_one = usize::from(group) + usize::from(category) + usize::from(dialled(false) || dialled(true)) == 1;
        let lists = [component.groups.is_empty(), component.categories.is_empty(), component.dial_strings.is_empty()];
        let several = lists.iter().filter(|empty| !**empty).count() > 1;
        self.met("5: one alternative of several", several && only_one);
    }
}
