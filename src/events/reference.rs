//! The types of assignment-events: facts with a version about customers and bill runs.

use serde_json::value::RawValue;

use super::envelope::{self, Envelope};
use super::fields::{Faults, Field, boolean, integer, object, shown, text};
use super::object::{Object, raw_object};
use super::usage::{CHARGING_TYPE, charging_type};
use super::{AssignmentFact, Record, Rules};
use crate::domain::{
    Assignment, AssignmentKey, BillRun, ChargingType, Component, CustomerFact, Date, DialString, Frequency, Inventory,
    Level, Plan, Quantity, Reason, Reference, Refusal, RunStatus, Threshold,
};

/// The most days that the usage dates of a bill run span.
const RUN_DAYS: i32 = 400;
/// The most rollover periods of a plan.
const ROLLOVER_PERIODS: i64 = 120;

raw_object! {
    /// What data say, of any type.
    Data {
        version = "version", customer = "customerId", site = "siteId", upi = "usageProductInventoryId",
        product = "usageProductId", assignment = "assignmentId", level = "assignmentLevel", start = "startDate",
        end = "endDate", plan = "plan", thresholds = "thresholds", cycle = "billingCycleId", owner = "contractOwnerId",
        bill_run = "billRunId", period_start = "periodStartDate", period_end = "periodEndDate",
        usage_from = "usageFromDate", usage_until = "usageUntilDate", status = "status",
    }
}

raw_object! {
    PlanData {
        id = "inclusiveUsagePlanId", product = "usageProductId", frequency = "frequency", anchor_day = "anchorDay",
        rollover_periods = "rolloverPeriods", min_qualifying_quantity = "minQualifyingQuantity",
        max_per_event_quantity = "maxPerEventQuantity", components = "components",
    }
}

raw_object! {
    ComponentData {
        id = "componentId", by_value = "byValue", charging_type = "chargingType", allowance = "allowance",
        timebands = "timebands", charge_groups = "chargeGroupIds", charge_group_categories = "chargeGroupCategoryIds",
        dial_strings = "dialStrings",
    }
}

raw_object! {
    DialStringData { digits = "dialString", whole = "isWholeNumber" }
}

raw_object! {
    ThresholdData { remaining_percent = "remainingPercent", remaining = "remaining" }
}

/// Reads a record of assignment-events.
pub fn decode<'a, H>(record: &Record<'a, H>, rules: &Rules) -> Result<AssignmentFact, Refusal>
where
    H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
{
    let envelope: Envelope<'_, Data<'_>> = envelope::open(record)?;
    let data = &envelope.data;
    let mut faults = Faults::default();
    let (fact, key_field, key) = match &*envelope.kind {
        "assignment.changed" => of_customer(assignment(data, &mut faults)?),
        "assignment.removed" => of_customer(removed(data, &mut faults)?),
        "inventory.changed" => of_customer(inventory(data, &mut faults)?),
        "customer.changed" => of_customer(customer(data, &mut faults)?),
        "bill-run.changed" => {
            let (version, run) = bill_run(data, &mut faults)?;
            (AssignmentFact::BillRun { version, run }, "billRunId", run.id)
        }
        kind => {
            let detail = format!("type: {} is not taken by this topic", shown(kind));
            return Err(Refusal::new(Reason::UnknownType, detail));
        }
    };
    faults.judge()?;
    rules.judge_key(record, key_field, key)?;
    Ok(fact)
}

/// A customer, a version, and what it says of the customer.
type OfCustomer = (i64, i64, Reference);

fn of_customer((customer, version, fact): OfCustomer) -> (AssignmentFact, &'static str, i64) {
    (AssignmentFact::Reference { customer, version, fact }, "customerId", customer)
}

fn top<'a>(raw: Option<&'a str>, name: &'static str) -> Field<'a, 'static> {
    Field::new(raw, "", name)
}

fn version(raw: Option<&str>, faults: &mut Faults) -> i64 {
    top(raw, "version").required(integer, "is no integer of 64 bits", faults).unwrap_or(0)
}

fn level(raw: Option<&str>, faults: &mut Faults) -> Option<Level> {
    let read = |raw: &str| Level::from_name(&text(raw)?);
    top(raw, "assignmentLevel").required(read, "is none of CUSTOMER, SITE, INVENTORY", faults)
}

fn assignment(data: &Data<'_>, faults: &mut Faults) -> Result<OfCustomer, Refusal> {
    let version = version(data.version, faults);
    let id = top(data.assignment, "assignmentId").id(faults);
    let level = level(data.level, faults);
    let customer = top(data.customer, "customerId").id(faults);
    let scope = match level {
        Some(Level::Site) => top(data.site, "siteId").id(faults),
        Some(Level::Inventory) => top(data.upi, "usageProductInventoryId").id(faults),
        Some(Level::Customer) | None => 0,
    };
    let start_date = top(data.start, "startDate").date(faults);
    let end_date = top(data.end, "endDate").optional_date(faults);
    if let (Some(start), Some(end)) = (start_date, end_date) {
        faults.end_before_start(("endDate", end), ("startDate", start));
    }
    let plan = plan(top(data.plan, "plan"), faults)?;
    let thresholds = thresholds(data.thresholds, faults)?;
    let assignment = Assignment {
        id,
        level: level.unwrap_or(Level::Customer),
        scope,
        start_date: start_date.unwrap_or(Date::from_days(0)),
        end_date,
        plan,
        thresholds,
    };
    Ok((customer, version, Reference::Assignment(assignment)))
}

fn plan(field: Field<'_, '_>, faults: &mut Faults) -> Result<Plan, Refusal> {
    let data: PlanData<'_> = object(field, faults)?.unwrap_or_default();
    // Fields of a plan that is itself at fault are not missing.
    let mut none = Faults::default();
    let faults = if field.raw.is_some_and(|raw| raw.starts_with('{')) { faults } else { &mut none };
    let part = |raw, name| Field::new(raw, "plan.", name);
    let id = part(data.id, "inclusiveUsagePlanId").id(faults);
    let product = part(data.product, "usageProductId").optional_id(faults);
    let frequency = frequency(&data, faults);
    let rollover = |raw: &str| {
        integer(raw).filter(|periods| (0..=ROLLOVER_PERIODS).contains(periods)).and_then(|p| u16::try_from(p).ok())
    };
    let rollover_periods =
        part(data.rollover_periods, "rolloverPeriods").optional(rollover, "is no integer from 0 to 120", faults);
    let min_qualifying_quantity = part(data.min_qualifying_quantity, "minQualifyingQuantity").optional_quantity(faults);
    let max_per_event_quantity = part(data.max_per_event_quantity, "maxPerEventQuantity").optional_quantity(faults);
    let mut components: Vec<Component> = Vec::new();
    for (at, raw) in list(part(data.components, "components"), true, faults).into_iter().enumerate() {
        let component = component(raw, at, faults)?;
        if components.iter().any(|known| known.id == component.id) {
            let rule = "stands twice in the plan";
            faults.bad(&format!("plan.components[{at}]."), "componentId", &component.id.to_string(), rule);
        }
        components.push(component);
    }
    Ok(Plan {
        id,
        product,
        frequency,
        rollover_periods: rollover_periods.unwrap_or(0),
        min_qualifying_quantity,
        max_per_event_quantity,
        components,
    })
}

fn frequency(data: &PlanData<'_>, faults: &mut Faults) -> Frequency {
    let known = |raw: &str| {
        let name = text(raw)?;
        ["DAILY", "WEEKLY", "MONTHLY"].into_iter().find(|known| *known == name)
    };
    let rule = "is none of DAILY, WEEKLY, MONTHLY";
    let name = Field::new(data.frequency, "plan.", "frequency").optional(known, rule, faults);
    let anchor = Field::new(data.anchor_day, "plan.", "anchorDay");
    match name.unwrap_or("MONTHLY") {
        "DAILY" => Frequency::Daily,
        "WEEKLY" => {
            let read = |raw: &str| day_within(raw, 7);
            Frequency::Weekly(anchor.optional(read, "is no day of a week, 1 to 7", faults).unwrap_or(1))
        }
        _ => {
            let read = |raw: &str| day_within(raw, 28);
            Frequency::Monthly(anchor.optional(read, "is no day of every month, 1 to 28", faults).unwrap_or(1))
        }
    }
}

fn day_within(raw: &str, last: u8) -> Option<u8> {
    let day = integer(raw).and_then(|day| u8::try_from(day).ok())?;
    (1..=last).contains(&day).then_some(day)
}

fn component(raw: &str, at: usize, faults: &mut Faults) -> Result<Component, Refusal> {
    let path = format!("plan.components[{at}].");
    let Some(data) = element::<ComponentData<'_>>(raw, "plan.", "components", faults)? else {
        return Ok(Component {
            // No two faulty ones are alike.
            id: -1 - i64::try_from(at).unwrap_or(0),
            by_value: false,
            charging_type: ChargingType::Duration,
            allowance: Quantity::ZERO,
            timebands: Vec::new(),
            charge_groups: Vec::new(),
            charge_group_categories: Vec::new(),
            dial_strings: Vec::new(),
        });
    };
    let part = |raw, name| Field::new(raw, &path, name);
    let id = part(data.id, "componentId").id(faults);
    let by_value = part(data.by_value, "byValue").required(boolean, "is neither true nor false", faults);
    let kind = part(data.charging_type, "chargingType").required(charging_type, CHARGING_TYPE, faults);
    let allowance = part(data.allowance, "allowance").quantity(faults);
    let timebands = list(part(data.timebands, "timebands"), false, faults);
    let timebands = timebands.into_iter().map(|raw| part(Some(raw), "timebands").text(faults).into_owned()).collect();
    let charge_groups = ids(part(data.charge_groups, "chargeGroupIds"), faults);
    let charge_group_categories = ids(part(data.charge_group_categories, "chargeGroupCategoryIds"), faults);
    let mut dial_strings = Vec::new();
    for raw in list(part(data.dial_strings, "dialStrings"), false, faults) {
        let Some(dial) = element::<DialStringData<'_>>(raw, &path, "dialStrings", faults)? else { continue };
        let dial_path = format!("{path}dialStrings.");
        let digits = Field::new(dial.digits, &dial_path, "dialString").text(faults).into_owned();
        let whole = Field::new(dial.whole, &dial_path, "isWholeNumber");
        let whole = whole.optional(boolean, "is neither true nor false", faults).unwrap_or(false);
        dial_strings.push(DialString { digits, whole });
    }
    Ok(Component {
        id,
        by_value: by_value.unwrap_or(false),
        charging_type: kind.unwrap_or(ChargingType::Duration),
        allowance,
        timebands,
        charge_groups,
        charge_group_categories,
        dial_strings,
    })
}

fn thresholds(raw: Option<&str>, faults: &mut Faults) -> Result<Option<Vec<Threshold>>, Refusal> {
    if raw.is_none() {
        return Ok(None);
    }
    let mut thresholds = Vec::new();
    for raw in list(top(raw, "thresholds"), false, faults) {
        let Some(data) = element::<ThresholdData<'_>>(raw, "", "thresholds", faults)? else { continue };
        match (data.remaining_percent, data.remaining) {
            (Some(percent), None) => {
                let field = Field::new(Some(percent), "thresholds.", "remainingPercent");
                thresholds.extend(field.optional_quantity(faults).map(Threshold::RemainingPercent));
            }
            (None, Some(remaining)) => {
                let field = Field::new(Some(remaining), "thresholds.", "remaining");
                thresholds.extend(field.optional_quantity(faults).map(Threshold::Remaining));
            }
            _ => faults.bad("", "thresholds", raw, "has not just one of remainingPercent and remaining"),
        }
    }
    Ok(Some(thresholds))
}

fn removed(data: &Data<'_>, faults: &mut Faults) -> Result<OfCustomer, Refusal> {
    let version = version(data.version, faults);
    let id = top(data.assignment, "assignmentId").id(faults);
    let level = level(data.level, faults).unwrap_or(Level::Customer);
    let customer = top(data.customer, "customerId").id(faults);
    Ok((customer, version, Reference::AssignmentRemoved(AssignmentKey { level, id })))
}

fn inventory(data: &Data<'_>, faults: &mut Faults) -> Result<OfCustomer, Refusal> {
    let version = version(data.version, faults);
    let upi = top(data.upi, "usageProductInventoryId").id(faults);
    let site = top(data.site, "siteId").id(faults);
    let customer = top(data.customer, "customerId").id(faults);
    let product = top(data.product, "usageProductId").id(faults);
    Ok((customer, version, Reference::Inventory(Inventory { upi, site, product })))
}

fn customer(data: &Data<'_>, faults: &mut Faults) -> Result<OfCustomer, Refusal> {
    let version = version(data.version, faults);
    let customer = top(data.customer, "customerId").id(faults);
    let billing_cycle = top(data.cycle, "billingCycleId").id(faults);
    let contract_owner = top(data.owner, "contractOwnerId").optional_id(faults);
    Ok((customer, version, Reference::Customer(CustomerFact { billing_cycle, contract_owner })))
}

fn bill_run(data: &Data<'_>, faults: &mut Faults) -> Result<(i64, BillRun), Refusal> {
    let version = version(data.version, faults);
    let id = top(data.bill_run, "billRunId").id(faults);
    let billing_cycle = top(data.cycle, "billingCycleId").id(faults);
    let never = Date::from_days(0);
    let period_start = top(data.period_start, "periodStartDate").date(faults);
    let period_end = top(data.period_end, "periodEndDate").date(faults);
    let usage_from = top(data.usage_from, "usageFromDate").optional_date(faults).or(period_start).unwrap_or(never);
    let usage_until = top(data.usage_until, "usageUntilDate").optional_date(faults).or(period_end).unwrap_or(never);
    let status = |raw: &str| RunStatus::from_name(&text(raw)?);
    let status = top(data.status, "status").required(status, "is none of OPEN, CLOSED, FINALIZED", faults);
    if let (Some(start), Some(end)) = (period_start, period_end) {
        faults.end_before_start(("periodEndDate", end), ("periodStartDate", start));
        faults.end_before_start(("usageUntilDate", usage_until), ("usageFromDate", usage_from));
        if usage_until.days() - usage_from.days() >= RUN_DAYS {
            let rule = format!("is more than {RUN_DAYS} days from usageFromDate, {usage_from}");
            faults.bad("", "usageUntilDate", &usage_until.to_string(), &rule);
        }
    }
    let run = BillRun {
        id,
        billing_cycle,
        period_start: period_start.unwrap_or(never),
        period_end: period_end.unwrap_or(never),
        usage_from,
        usage_until,
        status: status.unwrap_or(RunStatus::Open),
    };
    Ok((version, run))
}

/// The elements of a list; none when it is absent or faulty.
fn list<'a>(field: Field<'a, '_>, required: bool, faults: &mut Faults) -> Vec<&'a str> {
    let read: fn(&'a str) -> Option<Vec<&'a str>> = |raw| {
        let elements: Vec<&RawValue> = raw.starts_with('[').then(|| serde_json::from_str(raw).ok()).flatten()?;
        Some(elements.into_iter().map(RawValue::get).collect())
    };
    let rule = "is no list";
    let found = if required { field.required(read, rule, faults) } else { field.optional(read, rule, faults) };
    found.unwrap_or_default()
}

fn ids(field: Field<'_, '_>, faults: &mut Faults) -> Vec<i64> {
    let elements = list(field, false, faults);
    elements.into_iter().map(|raw| Field { raw: Some(raw), ..field }.id(faults)).collect()
}

/// An object within a list; `None` when it is none.
fn element<'a, T: Object<'a>>(raw: &'a str, path: &str, name: &str, faults: &mut Faults) -> Result<Option<T>, Refusal> {
    object(Field::new(Some(raw), path, name), faults)
}
