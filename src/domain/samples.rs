//! Plain facts for unit tests.

use super::facts::{Assignment, ChargingType, Component, Frequency, Level, Plan};
use super::quantity::Quantity;
use super::time::Date;

/// A customer's assignment with one component.
pub(crate) fn assignment(
    frequency: Frequency,
    rollover_periods: u16,
    start_date: Date,
    end_date: Option<Date>,
) -> Assignment {
    let component = Component {
        id: 1,
        by_value: false,
        charging_type: ChargingType::Megabytes,
        allowance: Quantity::ZERO,
        timebands: Vec::new(),
        charge_groups: Vec::new(),
        charge_group_categories: Vec::new(),
        dial_strings: Vec::new(),
    };
    let plan = Plan {
        id: 1,
        product: None,
        frequency,
        rollover_periods,
        min_qualifying_quantity: None,
        max_per_event_quantity: None,
        components: vec![component],
    };
    Assignment { id: 1, level: Level::Customer, scope: 0, start_date, end_date, plan, thresholds: None }
}
