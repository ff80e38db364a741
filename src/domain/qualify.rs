//! Which usage qualifies for what (`domain.md section 5`).

use super::facts::{Assignment, Component, Usage};

impl Assignment {
    /// Whether the plan is for the product of this usage. (Site and line are matched by the account's index.)
    pub(super) fn takes_product(&self, usage: &Usage<'_>) -> bool {
        self.plan.product.is_none_or(|product| product == usage.product)
    }
}

impl Component {
    /// Whether this usage is of the unit and the qualifiers of the component. `min_qualifying_quantity` is the plan's
    /// and looked at by [`Component::large_enough`].
    pub(super) fn takes(&self, usage: &Usage<'_>) -> bool {
        self.charging_type == usage.charging_type && self.fits_timeband(usage) && self.fits_destination(usage)
    }

    /// Whether the whole event is large enough; usage paid by value always is.
    pub(super) fn large_enough(&self, assignment: &Assignment, usage: &Usage<'_>) -> bool {
        self.by_value || assignment.plan.min_qualifying_quantity.is_none_or(|least| usage.quantity >= least)
    }

    fn fits_timeband(&self, usage: &Usage<'_>) -> bool {
        self.timebands.is_empty() || usage.timeband.is_some_and(|band| self.timebands.iter().any(|own| own == band))
    }

    /// The three lists together are one list of alternatives, of which one must fit.
    fn fits_destination(&self, usage: &Usage<'_>) -> bool {
        if self.charge_groups.is_empty() && self.charge_group_categories.is_empty() && self.dial_strings.is_empty() {
            return true;
        }
        usage.charge_group.is_some_and(|group| self.charge_groups.contains(&group))
            || usage.charge_group_category.is_some_and(|category| self.charge_group_categories.contains(&category))
            || usage.destination.is_some_and(|destination| {
                self.dial_strings.iter().any(|dial| match dial.whole {
                    true => destination == dial.digits,
                    false => destination.starts_with(&dial.digits),
                })
            })
    }
}
