//! Which customers have plans, and which plans have components: what both stores note beside assignments, and never take
//! back, so that the query knows where to look for rows by these, in closed bill runs too.

use std::collections::BTreeSet;

use super::rows::Commit;

/// The pairs of a commit.
pub(super) struct Plans {
    /// Plans, each with a customer that has it.
    pub(super) customers: BTreeSet<(i64, i64)>,
    /// Components, each with a plan that has it.
    pub(super) components: BTreeSet<(i64, i64)>,
}

impl Plans {
    /// Those of the assignments of a commit.
    pub(super) fn of(commit: &Commit) -> Plans {
        let mut plans = Plans { customers: BTreeSet::new(), components: BTreeSet::new() };
        for of in &commit.assignments {
            let Some(assignment) = &of.row.assignment else { continue };
            plans.customers.insert((assignment.plan.id, of.customer));
            plans.components.extend(assignment.plan.components.iter().map(|c| (c.id, assignment.plan.id)));
        }
        plans
    }
}
