//! Made-up but lifelike customers, plans and a month of their usage, as records of the two input topics.
//!
//! All of it follows from a seed, so that a demo can be seen again.

use serde_json::{Value, json};

use super::Line;
use crate::domain::{Date, Instant};

/// Microseconds in an hour.
const HOUR: i64 = 3_600_000_000;
/// Bill run, billing cycle and other numbers of the made-up company.
const BILL_RUN: i64 = 1;
const BILLING_CYCLE: i64 = 1;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 += 1;
        xxhash_rust::xxh3::xxh3_64(&self.0.to_be_bytes())
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below((to - from + 1).unsigned_abs())).unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let at = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        all[at]
    }
}

struct Phone {
    customer: i64,
    site: i64,
    upi: i64,
}

/// The month before `today`, as its first day and its number of days.
pub(super) fn month_before(today: Date) -> (Date, i32) {
    let (year, month, _) = today.civil();
    let first = if month == 1 { Date::from_civil(year - 1, 12, 1) } else { Date::from_civil(year, month - 1, 1) };
    (first, Date::from_civil(year, month, 1).days() - first.days())
}

/// Reference facts first, then usage in the order in which it becomes known, of `days` days from `first` on.
pub(super) fn month(seed: u64, customers: i64, events: usize, first: Date, days: i32) -> Vec<Line> {
    let mut dice = Dice(seed << 32);
    let start = Instant::from_micros(i64::from(first.days()) * 24 * HOUR);
    let mut lines = vec![bill_run(first, first.plus(days - 1), start)];
    let mut phones = Vec::new();
    for customer in 1..=customers {
        facts_of(customer, first, start, &mut dice, &mut lines, &mut phones);
    }
    let mut usage: Vec<Line> = (0..events).flat_map(|number| usage(number, start, days, &phones, &mut dice)).collect();
    usage.sort_by_key(|line| line.timestamp);
    lines.extend(usage);
    lines
}

fn event(kind: &str, source: &str, id: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": source, "type": kind, "data": data}).to_string()
}

fn fact(key: i64, kind: &str, id: &str, at: Instant, data: &Value) -> Line {
    Line {
        key: key.to_string(),
        value: Some(event(kind, "/crm", id, data)),
        timestamp: at.micros() / 1_000,
        is_usage: false,
    }
}

fn bill_run(first: Date, last: Date, at: Instant) -> Line {
    let data = json!({
        "version": 1, "billRunId": BILL_RUN, "billingCycleId": BILLING_CYCLE,
        "periodStartDate": first, "periodEndDate": last, "status": "OPEN",
    });
    fact(BILL_RUN, "bill-run.changed", "run-1", at, &data)
}

/// A customer of one to three sites, each with one to four phones, and what it bought.
fn facts_of(customer: i64, first: Date, at: Instant, dice: &mut Dice, lines: &mut Vec<Line>, phones: &mut Vec<Phone>) {
    let data = json!({"version": 1, "customerId": customer, "billingCycleId": BILLING_CYCLE, "contractOwnerId": 1});
    lines.push(fact(customer, "customer.changed", &format!("customer-{customer}"), at, &data));
    let sites = dice.between(1, 3);
    for site in 1..=sites {
        let site = customer * 10 + site;
        for number in 1..=dice.between(1, 4) {
            let upi = site * 10 + number;
            let data = json!({
                "version": 1, "usageProductInventoryId": upi, "siteId": site, "customerId": customer, "usageProductId": 1,
            });
            lines.push(fact(customer, "inventory.changed", &format!("upi-{upi}"), at, &data));
            phones.push(Phone { customer, site, upi });
            let texts = component(1, "ONE_OFF", dice.one_of(&[20, 50, 100]));
            lines.push(assignment(customer, "INVENTORY", upi, 30, first, at, &texts));
        }
        let data = component(1, "MB", dice.one_of(&[10_000, 20_000, 40_000]));
        lines.push(assignment(customer, "SITE", site, 20, first, at, &data));
    }
    let minutes = component(1, "DURATION", dice.one_of(&[60_000, 120_000, 180_000]));
    lines.push(assignment(customer, "CUSTOMER", customer, 10, first, at, &minutes));
}

fn component(id: i64, charging_type: &str, allowance: i64) -> Value {
    json!({"componentId": id, "byValue": false, "chargingType": charging_type, "allowance": allowance})
}

fn assignment(customer: i64, level: &str, scope: i64, plan: i64, first: Date, at: Instant, component: &Value) -> Line {
    let mut data = json!({
        "version": 1, "assignmentId": scope, "assignmentLevel": level, "customerId": customer, "startDate": first,
        "plan": {"inclusiveUsagePlanId": plan, "components": [component]},
    });
    match level {
        "SITE" => data["siteId"] = json!(scope),
        "INVENTORY" => data["usageProductInventoryId"] = json!(scope),
        _ => {}
    }
    fact(customer, "assignment.changed", &format!("assignment-{level}-{scope}"), at, &data)
}

/// A call, a text or some data; now and then sent twice, late, or taken back.
fn usage(number: usize, start: Instant, days: i32, phones: &[Phone], dice: &mut Dice) -> Vec<Line> {
    // Some customers use much more than others.
    let reach = dice.below(phones.len() as u64) + 1;
    let phone = &phones[usize::try_from(dice.below(reach)).unwrap_or(0)];
    let hour = dice.one_of(&[7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23]);
    let day = dice.between(0, i64::from(days) - 1);
    let begun =
        Instant::from_micros(start.micros() + (day * 24 + hour) * HOUR + dice.between(0, HOUR / 1_000 - 1) * 1_000);
    let (charging_type, quantity, price) = match dice.below(10) {
        0..5 => ("DURATION", dice.between(20, 600), 12),
        5..8 => ("MB", dice.between(1, 250), 5),
        _ => ("ONE_OFF", 1, 4),
    };
    let id = format!("cdr-{number}");
    let data = json!({
        "customerId": phone.customer, "siteId": phone.site, "usageProductInventoryId": phone.upi, "usageProductId": 1,
        "startTime": begun.to_string(), "chargingType": charging_type, "quantity": quantity, "price": price,
        "timeband": if (8..18).contains(&hour) { "PEAK" } else { "OFF_PEAK" }, "destination": "442079460000",
    });
    let known = begun.micros() / 1_000 + dice.between(1_000, 90_000);
    let line = |value: String, timestamp: i64| Line {
        key: phone.customer.to_string(),
        value: Some(value),
        timestamp,
        is_usage: true,
    };
    let recorded = event("usage.recorded", "/switch", &id, &data);
    let mut lines = vec![line(recorded.clone(), known)];
    match dice.below(100) {
        0..2 => lines.push(line(recorded, known + dice.between(1_000, 600_000))),
        2..4 => lines[0].timestamp += dice.between(600_000, 7_200_000),
        4 => {
            let reverses = json!({"source": "/switch", "id": id, "startTime": begun.to_string()});
            let data = json!({"customerId": phone.customer, "reverses": reverses});
            let undone = event("usage.reversed", "/rating", &format!("undo-{number}"), &data);
            lines.push(line(undone, known + dice.between(3_600_000, 86_400_000)));
        }
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_the_same_each_time_and_in_order() {
        let first = Date::from_civil(2026, 10, 1);
        let (one, other) = (month(7, 5, 300, first, 31), month(7, 5, 300, first, 31));
        assert!(one.iter().map(|line| &line.value).eq(other.iter().map(|line| &line.value)));
        let usage: Vec<i64> = one.iter().filter(|line| line.is_usage).map(|line| line.timestamp).collect();
        assert!(usage.len() >= 300 && usage.is_sorted());
    }

    #[test]
    fn the_month_before_january_is_december() {
        assert_eq!(month_before(Date::from_civil(2027, 1, 15)), (Date::from_civil(2026, 12, 1), 31));
    }
}
