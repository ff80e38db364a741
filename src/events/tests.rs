//! Records and what is wrong with them, in tables.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::domain::{Level, Position, Quantity};

const STRUCTURED: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents+json; charset=utf-8")];
/// 2026-11-24T10:00:00Z
const TIMESTAMP: i64 = 1_795_514_400_000;

fn rules() -> Rules {
    Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_future: Duration::from_secs(86_400),
        retention: Duration::from_secs(400 * 86_400),
    }
}

fn usage() -> Value {
    json!({"specversion": "1.0", "id": "c-1", "source": "/switch", "type": "usage.recorded", "data": {
        "customerId": 17, "siteId": 171, "usageProductInventoryId": 1711, "usageProductId": 1,
        "startTime": "2026-11-24T09:30:00Z", "chargingType": "DURATION", "quantity": 600}})
}

fn reversal() -> Value {
    json!({"specversion": "1.0", "id": "u-1", "source": "/rating", "type": "usage.reversed", "data": {
        "customerId": 17, "reverses": {"source": "/switch", "id": "c-1", "startTime": "2026-11-24T09:30:00Z"}}})
}

fn assignment() -> Value {
    json!({"specversion": "1.0", "id": "a-1", "source": "/crm", "type": "assignment.changed", "data": {
        "version": 1, "assignmentId": 5, "assignmentLevel": "SITE", "customerId": 17, "siteId": 171,
        "startDate": "2026-11-01", "endDate": null,
        "plan": {"inclusiveUsagePlanId": 10, "components": [
            {"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": "3e4",
             "dialStrings": [{"dialString": "44"}]}]},
        "thresholds": [{"remainingPercent": 20}, {"remaining": 0}]}})
}

fn bill_run() -> Value {
    json!({"specversion": "1.0", "id": "r-1", "source": "/billing", "type": "bill-run.changed", "data": {
        "version": 1, "billRunId": 17, "billingCycleId": 0, "periodStartDate": "2026-11-01",
        "periodEndDate": "2026-11-30", "status": "OPEN"}})
}

/// A value with another value at a path, such as `data.plan.components.0.allowance`; `None` takes the field away.
fn with(mut value: Value, path: &str, new: Option<Value>) -> Value {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = &mut value;
    for name in parents.split('.').filter(|name| !name.is_empty()) {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    match (new, at.as_object_mut()) {
        (Some(new), Some(object)) => drop(object.insert(last.to_owned(), new)),
        (None, Some(object)) => drop(object.remove(last)),
        (new, None) => at[last.parse::<usize>().expect("an index")] = new.unwrap_or(Value::Null),
    }
    value
}

type Sent<'a> = Record<'a, std::vec::IntoIter<(&'a str, Option<&'a [u8]>)>>;

fn record<'a>(key: &'a str, value: &'a [u8], headers: &[(&'a str, &'a [u8])]) -> Sent<'a> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, Some(*value))).collect();
    Record {
        partition: 0,
        timestamp: Some(TIMESTAMP),
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: headers.into_iter(),
    }
}

fn refused(value: &str) -> Option<(Reason, String)> {
    let record = record("17", value.as_bytes(), STRUCTURED);
    let kind: Value = serde_json::from_str(value).unwrap_or_default();
    let refusal = if kind["type"].as_str().is_some_and(|kind| kind.starts_with("usage")) {
        decode_usage(&record, &rules()).err()
    } else {
        decode_assignment(&record, &rules()).err()
    };
    refusal.map(|refusal| (refusal.reason, refusal.detail))
}

#[test]
fn valid_records_are_read() {
    let text = usage().to_string();
    let Ok(UsageFact::Recorded(recorded)) = decode_usage(&record("17", text.as_bytes(), STRUCTURED), &rules()) else {
        panic!("a valid record")
    };
    let read = recorded.usage();
    let start = Instant::parse("2026-11-24T09:30:00Z").expect("an instant");
    assert_eq!(read.position, Position { start, key: crate::domain::EventKey::new("/switch", "c-1") });
    assert_eq!((recorded.customer, read.quantity), (17, Quantity::from_millionths(600_000_000)));

    let text = assignment().to_string();
    let read = decode_assignment(&record("17", text.as_bytes(), STRUCTURED), &rules());
    let Ok(AssignmentFact::Reference { fact: Reference::Assignment(read), .. }) = read else {
        panic!("a valid record: {read:?}")
    };
    assert_eq!((read.level, read.scope, read.plan.components.len()), (Level::Site, 171, 1));
    for valid in [reversal(), bill_run()] {
        assert_eq!(refused(&valid.to_string()), None, "{valid}");
    }
}

#[test]
fn every_fault_has_its_reason_and_names_field_and_value() {
    use Reason::*;
    let (u, r, a, b) = (usage, reversal, assignment, bill_run);
    for (value, path, new, reason, told) in [
        (u(), "specversion", Some(json!("0.3")), Unreadable, "specversion: 0.3"),
        (u(), "specversion", None, Unreadable, "specversion is missing"),
        (u(), "id", Some(json!("")), Unreadable, "id is empty"),
        (u(), "source", None, Unreadable, "source is missing"),
        (u(), "source", Some(json!(5)), Unreadable, "source: 5"),
        (u(), "data", Some(json!(null)), Unreadable, "data is missing"),
        (u(), "data", Some(json!([1])), Unreadable, "data: [1] is no object"),
        (u(), "type", Some(json!("usage.imagined")), UnknownType, "usage.imagined"),
        (u(), "data.customerId", None, MissingField, "customerId is missing"),
        (u(), "data.customerId", Some(json!(null)), MissingField, "customerId is missing"),
        (u(), "data.customerId", Some(json!("17")), BadValue, "customerId: \"17\""),
        (u(), "data.siteId", Some(json!(-1)), BadValue, "siteId: -1"),
        (u(), "data.siteId", Some(json!(1.5)), BadValue, "siteId: 1.5"),
        (u(), "data.quantity", Some(json!("-1")), BadValue, "quantity: \"-1\""),
        (u(), "data.quantity", Some(json!("0.0000001")), BadValue, "quantity"),
        (u(), "data.quantity", Some(json!(" 1")), BadValue, "quantity"),
        (u(), "data.price", Some(json!([])), BadValue, "price: []"),
        (u(), "data.chargingType", Some(json!("GB")), BadValue, "chargingType: \"GB\""),
        (u(), "data.startTime", Some(json!("2026-11-24 09:30:00Z")), BadValue, "startTime"),
        (u(), "data.timeband", Some(json!(5)), BadValue, "timeband: 5"),
        (u(), "data.startTime", Some(json!("2026-11-25T10:00:00.000001Z")), TooFarAhead, "startTime"),
        (u(), "data.startTime", Some(json!("2025-10-20T09:59:59.999999Z")), TooOld, "startTime"),
        (u(), "data.customerId", Some(json!(18)), WrongKey, "key: 17"),
        (r(), "data.reverses", None, MissingField, "reverses is missing"),
        (r(), "data.reverses", Some(json!("x")), BadValue, "reverses"),
        (r(), "data.reverses.id", None, MissingField, "reverses.id is missing"),
        (r(), "data.reverses.id", Some(json!("")), BadValue, "reverses.id"),
        (a(), "data.version", Some(json!(1.0)), BadValue, "version: 1.0"),
        (a(), "data.siteId", None, MissingField, "siteId is missing"),
        (a(), "data.assignmentLevel", Some(json!("SHELF")), BadValue, "assignmentLevel: \"SHELF\""),
        (a(), "data.startDate", Some(json!("2026-02-30")), BadValue, "startDate"),
        (a(), "data.endDate", Some(json!("2026-10-31")), EndBeforeStart, "endDate: 2026-10-31"),
        (a(), "data.plan", Some(json!(7)), BadValue, "plan: 7"),
        (a(), "data.plan", None, MissingField, "plan is missing"),
        (a(), "data.plan.components", None, MissingField, "plan.components is missing"),
        (a(), "data.plan.components.0", Some(json!(null)), BadValue, "plan.components: null"),
        (a(), "data.plan.components.0.componentId", None, MissingField, "plan.components[0].componentId"),
        (a(), "data.plan.components.0.timebands", Some(json!([null])), BadValue, "plan.components[0].timebands"),
        (a(), "data.plan.components.0.dialStrings.0.dialString", None, MissingField, "dialString"),
        (a(), "data.plan.frequency", Some(json!("YEARLY")), BadValue, "plan.frequency: \"YEARLY\""),
        (a(), "data.plan.anchorDay", Some(json!(29)), BadValue, "plan.anchorDay: 29"),
        (a(), "data.plan.rolloverPeriods", Some(json!(121)), BadValue, "plan.rolloverPeriods: 121"),
        (a(), "data.thresholds", Some(json!([{}])), BadValue, "thresholds: {}"),
        (a(), "data.thresholds", Some(json!([null])), BadValue, "thresholds: null"),
        (b(), "data.status", Some(json!("DONE")), BadValue, "status: \"DONE\""),
        (b(), "data.periodEndDate", Some(json!("2026-10-31")), EndBeforeStart, "periodEndDate"),
        (b(), "data.usageFromDate", Some(json!("2025-10-01")), BadValue, "usageUntilDate"),
        (b(), "data.billRunId", Some(json!(18)), WrongKey, "billRunId, 18"),
    ] {
        let value = with(value, path, new);
        let (found, detail) = refused(&value.to_string()).unwrap_or_else(|| panic!("is refused: {value}"));
        assert_eq!(found, reason, "{detail}: {value}");
        assert!(detail.contains(told), "{detail:?} does not say {told:?}");
    }
}

#[test]
fn what_may_be_left_out_or_is_ignored_is_no_fault() {
    for value in [
        with(usage(), "data.price", Some(json!(null))),
        with(usage(), "data.extra", Some(json!({"a": [1, 2]}))),
        with(usage(), "data.startTime", Some(json!("2026-11-25T10:00:00Z"))),
        with(usage(), "data.startTime", Some(json!("2025-10-20T10:00:00Z"))),
        with(assignment(), "data.plan.components", Some(json!([]))),
        with(with(assignment(), "data.plan.frequency", Some(json!("DAILY"))), "data.plan.anchorDay", Some(json!("x"))),
        with(with(assignment(), "data.assignmentLevel", Some(json!("CUSTOMER"))), "data.siteId", Some(json!("x"))),
        with(assignment(), "data.thresholds", Some(json!([]))),
        with(bill_run(), "data.usageFromDate", Some(json!("2025-10-27"))),
    ] {
        assert_eq!(refused(&value.to_string()), None, "{value}");
    }
}

#[test]
fn earlier_reasons_are_told_first() {
    let missing = with(with(assignment(), "data.startDate", Some(json!(1))), "data.plan.components.0.allowance", None);
    assert_eq!(refused(&missing.to_string()).map(|r| r.0), Some(Reason::MissingField));
    let bad =
        with(with(assignment(), "data.endDate", Some(json!("2026-10-31"))), "data.plan.anchorDay", Some(json!(0)));
    assert_eq!(refused(&bad.to_string()).map(|r| r.0), Some(Reason::BadValue));
    let key =
        with(with(usage(), "data.customerId", Some(json!(18))), "data.startTime", Some(json!("2000-01-01T00:00:00Z")));
    assert_eq!(refused(&key.to_string()).map(|r| r.0), Some(Reason::WrongKey));
}

#[test]
fn a_field_given_twice_makes_a_record_unreadable() {
    for (value, field, twice) in [
        (usage(), "\"quantity\":600", "\"quantity\":600,\"quantity\":600"),
        (usage(), "\"id\":\"c-1\"", "\"id\":\"c-1\",\"\\u0069d\":\"c-1\""),
        (usage(), "\"id\":\"c-1\"", "\"id\":\"c-1\",\"time\":\"x\",\"time\":\"x\""),
        (reversal(), "\"id\":\"c-1\"", "\"id\":\"c-1\",\"id\":\"c-1\""),
        (assignment(), "\"dialString\":\"44\"", "\"dialString\":\"44\",\"dialString\":\"44\""),
        (assignment(), "\"remaining\":0", "\"remaining\":0,\"remaining\":0"),
        (assignment(), "\"componentId\":1", "\"componentId\":1,\"componentId\":null"),
    ] {
        let text = value.to_string();
        assert!(text.contains(field), "{text}");
        let (reason, _) = refused(&text.replace(field, twice)).expect("is refused");
        assert_eq!(reason, Reason::Unreadable, "{twice}");
    }
    let extra = usage().to_string().replace("\"id\":\"c-1\"", "\"id\":\"c-1\",\"x\":1,\"x\":2");
    assert_eq!(refused(&extra), None);
}

#[test]
fn the_mode_follows_content_type_and_headers() {
    let event = usage();
    let (whole, data) = (event.to_string(), event["data"].to_string());
    let binary: &[(&str, &[u8])] =
        &[("ce_specversion", b"1.0"), ("ce_id", b"c-1"), ("ce_source", b"/switch"), ("ce_type", b"usage.recorded")];
    let read = |value: &str, headers: &[(&str, &[u8])]| {
        decode_usage(&record("17", value.as_bytes(), headers), &rules()).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(read(&whole, &[]), Ok(()));
    assert_eq!(read(&data, binary), Ok(()));
    let time: (&str, &[u8]) = ("ce_time", b"\xff");
    assert_eq!(read(&data, &[binary, &[time]].concat()), Ok(()), "nobody looks at it");
    assert_eq!(read(&data, &[binary, &[time, time]].concat()), Err(Reason::Unreadable));
    assert_eq!(read(&data, &[]), Err(Reason::Unreadable));
    assert_eq!(
        read(&whole, &[("content-type", b"Application/CloudEvents+JSON ;charset=utf-8"), ("ce_id", b"x")]),
        Ok(())
    );
    assert_eq!(read(&whole, &[("content-type", b"application/cloudevents-batch+json")]), Err(Reason::Unreadable));
    assert_eq!(read(&data, &[binary, &[("ce_id", b"again")]].concat()), Err(Reason::Unreadable));
    assert_eq!(read(&data, &binary[1..]), Err(Reason::Unreadable));
    assert_eq!(read("null", binary), Err(Reason::Unreadable));
    assert_eq!(read(&format!("[{whole}]"), STRUCTURED), Err(Reason::Unreadable));
    assert_eq!(read("[\"1.0\",\"c-1\",\"/switch\",\"usage.recorded\",{}]", STRUCTURED), Err(Reason::Unreadable));
}

#[test]
fn a_record_must_lie_where_its_key_gives() {
    let text = usage().to_string();
    let mut elsewhere = record("17", text.as_bytes(), STRUCTURED);
    let spread = Rules { partitions: 8, ..rules() };
    elsewhere.partition = (Partitioner::Murmur2.partition(b"17", 8) + 1) % 8;
    let refusal = decode_usage(&elsewhere, &spread).expect_err("it lies elsewhere");
    assert_eq!(refusal.reason, Reason::WrongKey);
    for key in ["017", "+17", " 17", ""] {
        let refusal = decode_usage(&record(key, text.as_bytes(), STRUCTURED), &rules()).expect_err("another key");
        assert_eq!(refusal.reason, Reason::WrongKey, "{key:?}");
    }
    let mut none = record("17", text.as_bytes(), STRUCTURED);
    (none.key, none.timestamp) = (None, None);
    assert_eq!(decode_usage(&none, &rules()).expect_err("no key").reason, Reason::WrongKey);
}
