//! Facts as records: CloudEvents in JSON, each in one of the many ways in which the same data can be written.

use jiff::Timestamp;

use crate::facts::{Assignment, Component, Fact, Fault, Frequency, LEVELS, Name, STATUSES, Threshold, UNITS, Usage};

/// When all records were produced. The usage of histories lies between `retention` before and `max_future` after it.
pub(crate) const PRODUCED: &str = "2025-12-20T00:00:00Z";

/// A record as it lies in Kafka.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    /// The envelope of binary mode; none in structured mode.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Which of the many ways; each bit decides one thing, and every number is a way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style(pub u16);

impl Style {
    fn chooses(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// A decimal.
    fn decimal(self, millionths: i64) -> String {
        let (whole, fraction) = (millionths / 1_000_000, millionths % 1_000_000);
        let mut text = format!("{whole}.{fraction:06}");
        match self.0 % 4 {
            _ if fraction != 0 => text = text.trim_end_matches('0').to_owned(),
            0 => text = whole.to_string(),
            1 => text = format!("{whole}.0"),
            2 => text = format!("{millionths}e-6"),
            _ => text.push_str("000"),
        }
        if self.chooses(2) { format!("\"{text}\"") } else { text }
    }

    /// An instant, in UTC or with an offset, with digits that are cut.
    fn instant(self, micros: i64) -> String {
        let at = Timestamp::from_microsecond(micros).expect("an instant of our time");
        if self.chooses(3) {
            return format!("\"{}t{}999z\"", at.strftime("%Y-%m-%d"), at.strftime("%H:%M:%S%.6f"));
        }
        let offset = jiff::tz::offset(if self.chooses(4) { -5 } else { 2 });
        let local = at.to_zoned_datetime(offset.to_time_zone());
        format!("\"{}\"", local.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z"))
    }
}

/// A JSON object that is being written.
struct Object {
    style: Style,
    fields: Vec<String>,
}

impl Object {
    fn new(style: Style) -> Object {
        Object { style, fields: Vec::new() }
    }

    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Object {
        self.fields.push(format!("\"{name}\":{value}"));
        self
    }

    fn text(self, name: &str, value: &str) -> Object {
        self.raw(name, serde_json::Value::from(value))
    }

    /// A field that may be left out or be null when it is absent.
    fn maybe(self, name: &str, value: Option<impl std::fmt::Display>) -> Object {
        match value {
            Some(value) => self.raw(name, value),
            None if self.style.chooses(5) => self.raw(name, "null"),
            None => self,
        }
    }

    /// A field that may be left out when it has its default.
    fn default<T: PartialEq + std::fmt::Display>(self, name: &str, value: T, default: &T) -> Object {
        if value == *default { self.maybe(name, None::<T>) } else { self.raw(name, value) }
    }

    /// A list that may be left out when it is empty.
    fn list(self, name: &str, items: Vec<String>) -> Object {
        if items.is_empty() && self.style.chooses(6) {
            return self.maybe(name, None::<String>);
        }
        self.raw(name, format!("[{}]", items.join(",")))
    }

    fn end(mut self) -> String {
        if self.style.chooses(7) {
            self.fields.push("\"somethingElse\":{\"a\":[1,null]}".to_owned());
        }
        if self.style.chooses(8) {
            self.fields.reverse();
        }
        format!("{{{}}}", self.fields.join(","))
    }
}

/// The record of a fact; `id` is the id of its event unless the fact has its own.
pub(crate) fn record(fact: &Fact, id: &str, style: Style) -> Record {
    let object = Object::new(style);
    let ours = ("made-up".to_owned(), id.to_owned());
    let (kind, customer, (source, id), data) = match fact {
        Fact::Usage(usage) => {
            let called = (usage.name.source.clone(), usage.name.id.clone());
            ("usage.recorded", usage.customer, called, recorded(usage, object).end())
        }
        Fact::Reversed(customer, name) => {
            let data = object.raw("customerId", customer).raw("reverses", named(name, style)).end();
            ("usage.reversed", *customer, ours, data)
        }
        Fact::Assignment { key: (customer, level, assignment_id), version, assignment } => {
            let object = object
                .raw("version", version)
                .raw("customerId", customer)
                .text("assignmentLevel", LEVELS[*level])
                .raw("assignmentId", assignment_id);
            match assignment {
                Some(given) => ("assignment.changed", *customer, ours, assigned(given, *level, object).end()),
                None => ("assignment.removed", *customer, ours, object.end()),
            }
        }
        Fact::Inventory { customer, version, upi, site, product } => {
            let object = object.raw("version", version).raw("customerId", customer).raw("siteId", site);
            let data = object.raw("usageProductInventoryId", upi).raw("usageProductId", product).end();
            ("inventory.changed", *customer, ours, data)
        }
        Fact::Customer { customer, version, cycle, owner } => {
            let object = object.raw("version", version).raw("customerId", customer).raw("billingCycleId", cycle);
            ("customer.changed", *customer, ours, object.maybe("contractOwnerId", *owner).end())
        }
        Fact::BillRun { id: run_id, version, run } => {
            let object = object.raw("version", version).raw("billRunId", run_id).raw("billingCycleId", run.cycle);
            let (start, end) = (run.period.0.to_string(), run.period.1.to_string());
            let object = object.text("periodStartDate", &start).text("periodEndDate", &end);
            let quoted = |day: jiff::civil::Date| format!("\"{day}\"");
            let object = object.default("usageFromDate", quoted(run.usage.0), &quoted(run.period.0));
            let object = object.default("usageUntilDate", quoted(run.usage.1), &quoted(run.period.1));
            let data = object.text("status", STATUSES[usize::from(run.status)]).end();
            ("bill-run.changed", *run_id, ours, data)
        }
        Fact::Faulty(fault) => return faulty(*fault, id, style),
    };
    envelope(kind, customer, (&source, &id), data, style)
}

fn envelope(kind: &str, customer: i64, (source, id): (&str, &str), data: String, style: Style) -> Record {
    let key = customer.to_string().into_bytes();
    if style.chooses(9) {
        let headers = [("specversion", "1.0"), ("type", kind), ("source", source), ("id", id)];
        let names = ["ce_specversion", "ce_type", "ce_source", "ce_id"];
        let headers = names.into_iter().zip(headers.map(|(_, value)| value.to_owned())).collect();
        return Record { key, value: Some(data.into_bytes()), headers };
    }
    let event = Object::new(style).text("specversion", "1.0").text("type", kind).text("source", source);
    let value = event.text("id", id).raw("data", data).end().into_bytes();
    let headers = if style.chooses(10) {
        vec![("content-type", "application/cloudevents+json; charset=utf-8".to_owned())]
    } else {
        Vec::new()
    };
    Record { key, value: Some(value), headers }
}

fn named(name: &Name, style: Style) -> String {
    let object = Object::new(style).text("source", &name.source).text("id", &name.id);
    object.raw("startTime", style.instant(name.start)).end()
}

fn recorded(usage: &Usage, object: Object) -> Object {
    let style = object.style;
    let quoted = |text: &Option<String>| text.as_deref().map(serde_json::Value::from);
    object
        .raw("customerId", usage.customer)
        .raw("siteId", usage.site)
        .raw("usageProductInventoryId", usage.upi)
        .raw("usageProductId", usage.product)
        .raw("startTime", style.instant(usage.name.start))
        .text("chargingType", UNITS[usage.unit])
        .raw("quantity", style.decimal(usage.quantity))
        .default("price", style.decimal(usage.price), &style.decimal(0))
        .maybe("timeband", quoted(&usage.timeband))
        .maybe("chargeGroupId", usage.group)
        .maybe("chargeGroupCategoryId", usage.category)
        .maybe("destination", quoted(&usage.destination))
}

fn assigned(given: &Assignment, level: usize, object: Object) -> Object {
    let style = object.style;
    // What a level has no use for is ignored, whatever stands there.
    let ignored = style.chooses(7).then_some(987);
    let thresholds = given.thresholds.as_ref().map(|list| {
        let items: Vec<String> = list.iter().map(|threshold| self::threshold(*threshold, style)).collect();
        format!("[{}]", items.join(","))
    });
    object
        .maybe("siteId", if level == 1 { Some(given.scope) } else { ignored })
        .maybe("usageProductInventoryId", if level == 0 { Some(given.scope) } else { ignored })
        .text("startDate", &given.start.to_string())
        .maybe("endDate", given.end.map(|end| format!("\"{end}\"")))
        .maybe("thresholds", thresholds)
        .raw("plan", plan(given, style))
}

fn threshold(threshold: Threshold, style: Style) -> String {
    let (name, value) = match threshold {
        Threshold::Percent(percent) => ("remainingPercent", percent),
        Threshold::Remaining(remaining) => ("remaining", remaining),
    };
    Object::new(style).raw(name, style.decimal(value)).end()
}

fn plan(given: &Assignment, style: Style) -> String {
    let plan = &given.plan;
    let (frequency, anchor) = match plan.frequency {
        Frequency::Daily => ("\"DAILY\"", if style.chooses(8) { 7 } else { 1 }),
        Frequency::Weekly(day) => ("\"WEEKLY\"", day),
        Frequency::Monthly(day) => ("\"MONTHLY\"", day),
    };
    let components = plan.components.iter().map(|component| self::component(component, style)).collect::<Vec<_>>();
    Object::new(style)
        .raw("inclusiveUsagePlanId", plan.id)
        .maybe("usageProductId", plan.product)
        .default("frequency", frequency, &"\"MONTHLY\"")
        .default("anchorDay", anchor, &1)
        .default("rolloverPeriods", plan.rollover, &0)
        .maybe("minQualifyingQuantity", plan.least.map(|least| style.decimal(least)))
        .maybe("maxPerEventQuantity", plan.most.map(|most| style.decimal(most)))
        .raw("components", format!("[{}]", components.join(",")))
        .end()
}

fn component(component: &Component, style: Style) -> String {
    let texts = |list: &[String]| list.iter().map(|text| serde_json::Value::from(text.as_str()).to_string()).collect();
    let ids = |list: &[i64]| list.iter().map(i64::to_string).collect();
    let dial_string = |(digits, whole): &(String, bool)| {
        Object::new(style).text("dialString", digits).default("isWholeNumber", *whole, &false).end()
    };
    Object::new(style)
        .raw("componentId", component.id)
        .raw("byValue", component.by_value)
        .text("chargingType", UNITS[component.unit])
        .raw("allowance", style.decimal(component.allowance))
        .list("timebands", texts(&component.timebands))
        .list("chargeGroupIds", ids(&component.groups))
        .list("chargeGroupCategoryIds", ids(&component.categories))
        .list("dialStrings", component.dial_strings.iter().map(dial_string).collect())
        .end()
}

/// A record that is at fault by itself, and says nothing of anyone.
fn faulty(fault: Fault, id: &str, style: Style) -> Record {
    let text = |micros_off: i64| {
        let produced: Timestamp = PRODUCED.parse().expect("an instant");
        style.instant(produced.as_microsecond() + micros_off)
    };
    let day = 86_400_000_000;
    let usage = |start: String| {
        let object = Object::new(style).raw("customerId", 1).raw("siteId", 1).raw("usageProductInventoryId", 1);
        object.raw("usageProductId", 1).raw("startTime", start).text("chargingType", "MB")
    };
    let of_usage = |kind: &str, data: Object| envelope(kind, 1, ("made-up", id), data.end(), style);
    match fault {
        Fault::NoJson => {
            Record { value: Some(b"{\"specversion\"".to_vec()), ..of_usage("usage.recorded", usage(text(0))) }
        }
        Fault::NoValue => Record { value: None, ..of_usage("usage.recorded", usage(text(0))) },
        Fault::WrongTopic => of_usage("customer.changed", Object::new(style)),
        Fault::NoQuantity => of_usage("usage.recorded", usage(text(0))),
        Fault::NegativeQuantity => of_usage("usage.recorded", usage(text(0)).raw("quantity", "-1")),
        Fault::InTheFuture => of_usage("usage.recorded", usage(text(day + 1)).raw("quantity", "1")),
        Fault::LongAgo => of_usage("usage.recorded", usage(text(-400 * day - 1)).raw("quantity", "1")),
        Fault::AnotherKey => {
            Record { key: b"2".to_vec(), ..of_usage("usage.recorded", usage(text(0)).raw("quantity", "1")) }
        }
        Fault::EndBeforeStart => {
            let data = Object::new(style).raw("version", 1).raw("customerId", 1).text("assignmentLevel", "CUSTOMER");
            let data = data.raw("assignmentId", 1).text("startDate", "2025-02-02").text("endDate", "2025-02-01");
            let plan = Object::new(style).raw("inclusiveUsagePlanId", 1).raw("components", "[]").end();
            envelope("assignment.changed", 1, ("made-up", id), data.raw("plan", plan).end(), style)
        }
    }
}
