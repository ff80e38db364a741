//! Hostile bytes: whatever lies in a record, reading it gives a fact or a sentence, and a fact holds to the contract.
//!
//! `CASES=100000 cargo test --lib events::fuzz` tries more than the usual few.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::json as object;
use serde_json::value::RawValue;

use super::*;
use crate::domain::{Date, Level, Quantity, packed};

/// Longer than any sentence needs to be.
const SENTENCE: usize = 600;

/// Tries as many as `CASES` says, or else the usual number.
fn for_all<S: Strategy>(strategy: &S, law: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let cases = std::env::var("CASES").map_or(2_000, |cases| cases.parse().expect("CASES is a number"));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    if let Err(error) = TestRunner::new(config).run(strategy, law) {
        panic!("{error}");
    }
}

/// Valid records of every type, as one text each.
fn valid() -> Vec<String> {
    let event = |kind: &str, data: serde_json::Value| {
        object!({"specversion": "1.0", "id": "e-1", "source": "/switch", "type": kind, "time": "2026-11-24T09:30:00Z",
            "data": data})
        .to_string()
    };
    vec![
        event(
            "usage.recorded",
            object!({"customerId": 17, "siteId": 171, "usageProductInventoryId": 1711, "usageProductId": 1,
                "startTime": "2026-11-24T09:30:00.25+01:00", "chargingType": "DURATION", "quantity": 600.5,
                "price": "12.000001", "timeband": "PEAK", "chargeGroupId": 3, "chargeGroupCategoryId": 4,
                "destination": "0044\u{e9}\n"}),
        ),
        event(
            "usage.reversed",
            object!({"customerId": 17, "reverses":
                {"source": "/switch", "id": "c-1", "startTime": "2026-11-24T09:30:00Z"}}),
        ),
        event(
            "assignment.changed",
            object!({"version": 1, "assignmentId": 5, "assignmentLevel": "SITE", "customerId": 17, "siteId": 171,
                "startDate": "2026-11-01", "endDate": "2027-01-31",
                "plan": {"inclusiveUsagePlanId": 10, "usageProductId": 1, "frequency": "WEEKLY", "anchorDay": 3,
                    "rolloverPeriods": 2, "minQualifyingQuantity": 1, "maxPerEventQuantity": "1e3", "components": [
                    {"componentId": 1, "byValue": false, "chargingType": "MB", "allowance": "3e4",
                     "timebands": ["PEAK"], "chargeGroupIds": [1], "chargeGroupCategoryIds": [2],
                     "dialStrings": [{"dialString": "44", "isWholeNumber": true}]}]},
                "thresholds": [{"remainingPercent": 20}, {"remaining": 0}]}),
        ),
        event(
            "assignment.removed",
            object!({"version": 2, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17}),
        ),
        event(
            "inventory.changed",
            object!({"version": 1, "usageProductInventoryId": 1, "siteId": 2, "customerId": 17, "usageProductId": 3}),
        ),
        event("customer.changed", object!({"version": 1, "customerId": 17, "billingCycleId": 1, "contractOwnerId": 2})),
        event(
            "bill-run.changed",
            object!({"version": 1, "billRunId": 17, "billingCycleId": 0, "periodStartDate": "2026-11-01",
                "periodEndDate": "2026-11-30", "usageFromDate": "2026-10-01", "usageUntilDate": "2026-10-31",
                "status": "OPEN"}),
        ),
    ]
}

/// Values that nobody sends by accident.
fn hostile() -> impl Strategy<Value = String> {
    let numbers = [
        "0",
        "-0",
        "-1",
        "1e2",
        "0.1",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "9223372036854.775807",
        "9223372036854.775808",
        "1e-6",
        "1e-7",
        "1e308",
        "1e999999999999999999999",
        "0e-99999999999999999999",
        "18446744073709551616",
        "01",
        "1.",
        "NaN",
    ];
    let times = [
        "0000-01-01",
        "0001-01-01",
        "9999-12-31",
        "2026-02-30",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999999-23:59",
        "2016-12-31T23:59:60Z",
        "2026-11-24 09:30:00Z",
        "2026-11-24T09:30:00",
        "-001-01-01T00:00:00Z",
        "\u{ff11}970-01-01T00:00:00Z",
    ];
    let names = ["DURATION", "MB", "DAILY", "MONTHLY", "INVENTORY", "SITE", "FINALIZED", "usage.recorded", "1.0", ""];
    prop_oneof![
        4 => select(numbers.to_vec()).prop_map(str::to_owned),
        2 => select(numbers.to_vec()).prop_map(|number| format!("\"{number}\"")),
        2 => select(times.to_vec()).prop_map(|time| format!("\"{time}\"")),
        1 => select(names.to_vec()).prop_map(|name| format!("\"{name}\"")),
        1 => select(vec!["null", "true", "[]", "{}", "[null]", "[{}]", "\"\\ud800\"", "\"\\u0000\"", "\"\u{7f}\u{1}\""])
            .prop_map(str::to_owned),
        1 => (1..5_000usize).prop_map(|deep| "[".repeat(deep) + &"]".repeat(deep)),
        1 => (1..5_000usize).prop_map(|deep| "{\"data\":".repeat(deep) + "1" + &"}".repeat(deep)),
        1 => (1..50_000usize).prop_map(|long| format!("\"{}\"", "x\u{e9}".repeat(long))),
        1 => (1..400usize).prop_map(|long| "9".repeat(long)),
    ]
}

/// What is done to the bytes of a record.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, usize),
    Again(Index, usize),
    /// The value after some colon or within some list.
    Value(Index, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => (at(), vec(any::<u8>(), 1..5)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (at(), 1..30usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        1 => (at(), 1..60usize).prop_map(|(at, length)| Damage::Again(at, length)),
        6 => (at(), hostile()).prop_map(|(at, value)| Damage::Value(at, value)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let span = |at: &Index, length: usize| at.index(bytes.len())..(at.index(bytes.len()) + length).min(bytes.len());
    match damage {
        Damage::Flip(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        Damage::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Cut(at, length) => drop(bytes.drain(span(at, *length))),
        Damage::Again(at, length) => {
            let again = bytes[span(at, *length)].to_vec();
            let at = span(at, *length).end;
            bytes.splice(at..at, again);
        }
        Damage::Value(at, value) => {
            let begins: Vec<usize> = (0..bytes.len()).filter(|at| matches!(bytes[*at], b':' | b'[')).collect();
            if begins.is_empty() {
                return;
            }
            let from = at.get(&begins) + 1;
            let length = bytes[from..].iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(0);
            bytes.splice(from..from + length, value.bytes());
        }
    }
}

/// Reads a record as either topic would, and judges what comes of it.
fn read(
    bytes: &[u8],
    key: &[u8],
    timestamp: Option<i64>,
    headers: &[(&str, Option<&[u8]>)],
) -> Result<(), TestCaseError> {
    let rules = Rules {
        partitioner: Partitioner::Murmur2,
        partitions: 1,
        max_future: Duration::from_secs(86_400),
        retention: Duration::from_secs(400 * 86_400),
    };
    let headers = headers.iter().copied();
    let record = Record { partition: 0, timestamp, key: Some(key), value: Some(bytes), headers };
    match decode_usage(&record, &rules) {
        Ok(UsageFact::Recorded(recorded)) => {
            let usage = recorded.usage();
            let ids = [recorded.customer, usage.site, usage.upi, usage.product];
            prop_assert!(ids.iter().all(|id| *id >= 0));
            prop_assert!(!recorded.source.is_empty() && !usage.id.is_empty());
            let mut body = Vec::new();
            packed::pack(&usage, &mut body);
            prop_assert_eq!(packed::unpack(usage.position, &body), Some(usage));
        }
        Ok(UsageFact::Reversed(reversal)) => {
            prop_assert!(reversal.customer >= 0 && !reversal.source.is_empty() && !reversal.id.is_empty());
        }
        Err(refusal) => judge(&refusal)?,
    }
    match decode_assignment(&record, &rules) {
        Ok(AssignmentFact::Reference { customer, fact, .. }) => {
            prop_assert!(customer >= 0);
            if let Reference::Assignment(assignment) = fact {
                let plan = &assignment.plan;
                prop_assert!(assignment.end_date.is_none_or(|end| end >= assignment.start_date));
                prop_assert!(assignment.level != Level::Customer || assignment.scope == 0);
                prop_assert!(plan.rollover_periods <= 120 && plan.components.iter().all(|component| component.id >= 0));
                let text = serde_json::to_string(&assignment).expect("it has a JSON form");
                prop_assert_eq!(
                    &serde_json::from_str::<crate::domain::Assignment>(&text).expect("it can be read"),
                    &assignment
                );
            }
        }
        Ok(AssignmentFact::BillRun { run, .. }) => {
            prop_assert!(run.period_start <= run.period_end && run.usage_from <= run.usage_until);
            prop_assert!(run.usage_until.days() - run.usage_from.days() < 400);
        }
        Err(refusal) => judge(&refusal)?,
    }
    Ok(())
}

/// One clear line, however the record looks.
fn judge(refusal: &Refusal) -> Result<(), TestCaseError> {
    let told = &refusal.detail;
    prop_assert!(!told.is_empty() && told.chars().count() < SENTENCE, "{} characters: {told}", told.chars().count());
    prop_assert!(!told.chars().any(char::is_control), "{told:?}");
    Ok(())
}

/// Milliseconds at which a record may have been written.
fn timestamp() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        6 => Just(Some(1_795_514_400_000)),
        2 => Just(None),
        1 => select(vec![Some(i64::MIN), Some(i64::MAX), Some(-1), Some(0)]),
    ]
}

#[test]
fn objects_are_read_as_serde_json_reads_them() {
    let damaged = (0..valid().len(), vec(damage(), 0..5));
    for_all(&damaged, |(which, damages)| {
        let mut bytes = valid()[which].clone().into_bytes();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
        let ours = json::tests::read(text);
        let theirs = serde_json::from_str::<BTreeMap<String, &RawValue>>(text).ok();
        let theirs = theirs.map(|all| all.into_iter().map(|(name, value)| (name, value.get())).collect());
        let in_order = ours.as_ref().map(|ours| ours.iter().cloned().collect::<BTreeMap<_, _>>());
        prop_assert_eq!(in_order, theirs, "{}", text);
        let data = ours.iter().flatten().filter(|(name, value)| name == "data" && value.starts_with('{'));
        let data = data.filter_map(|(_, value)| json::tests::read(value)).flatten().collect();
        prop_assert_eq!(json::tests::read_both(text), ours.map(|ours| (ours, data)), "{}", text);
        Ok(())
    });
}

#[test]
fn damaged_records_are_facts_or_sentences() {
    let record = (0..valid().len(), vec(damage(), 0..5), timestamp());
    for_all(&record, |(which, damages, timestamp)| {
        let mut bytes = valid()[which].clone().into_bytes();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        read(&bytes, b"17", timestamp, &[])?;
        read(&bytes, b"17", timestamp, &[("content-type", Some(b"application/cloudevents+json"))])
    });
}

#[test]
fn any_bytes_in_any_place_are_facts_or_sentences() {
    let bytes = |most: usize| prop_oneof![vec(any::<u8>(), 0..most), ".{0,40}".prop_map(String::into_bytes)];
    let names = select(vec![
        "content-type",
        "Content-Type",
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_",
        "",
        "\u{0}x",
    ]);
    let values = prop_oneof![
        3 => select(vec!["1.0", "e-1", "/switch", "usage.recorded", "bill-run.changed", "application/cloudevents+json", ";"])
            .prop_map(|text| Some(text.as_bytes().to_vec())),
        1 => bytes(20).prop_map(Some),
        1 => Just(None),
    ];
    let headers = vec((names, values), 0..7);
    let data = valid().into_iter().map(|event| {
        let event: serde_json::Value = serde_json::from_str(&event).expect("JSON");
        event["data"].to_string().into_bytes()
    });
    let value = prop_oneof![2 => bytes(200), 1 => select(data.collect::<Vec<_>>())];
    for_all(&(value, bytes(20), timestamp(), headers), |(value, key, timestamp, headers)| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        read(&value, &key, timestamp, &headers)
    });
}

/// A number's digits without zeros around them, and the power of ten of the last one; `None` for nothing.
fn normal(digits: &str, exponent: i64) -> Option<(String, i64)> {
    let digits = digits.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - short.len()).expect("few digits");
    (!short.is_empty()).then(|| (short.to_owned(), exponent + zeros))
}

#[test]
fn a_decimal_is_read_by_value() {
    let text = ("-?", "0|[1-9][0-9]{0,22}", "(\\.[0-9]{1,25})?", "([eE][+-]?[0-9]{1,3})?");
    for_all(&text, |(sign, whole, fraction, exponent)| {
        let text = format!("{sign}{whole}{fraction}{exponent}");
        prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok());
        let digits = format!("{whole}{}", fraction.trim_start_matches('.'));
        let power: i64 = exponent.get(1..).map_or(0, |power| power.parse().expect("a small number"));
        let decimals = i64::try_from(fraction.len().saturating_sub(1)).expect("few decimals");
        let value = normal(&digits, power - decimals);
        let fits = match &value {
            None => true,
            Some((digits, power)) => {
                let zeros = usize::try_from(power + 6).ok().filter(|zeros| *zeros < 40);
                let millionths = zeros.map(|zeros| digits.clone() + &"0".repeat(zeros));
                sign.is_empty() && millionths.is_some_and(|all| all.parse::<i64>().is_ok())
            }
        };
        let read = Quantity::parse(&text);
        prop_assert_eq!(read.is_some(), fits, "{} gave {:?}", text, read);
        if let Some(read) = read {
            prop_assert_eq!(normal(&read.millionths().to_string(), -6), value, "{}", text);
        }
        Ok(())
    });
}

#[test]
fn instants_and_dates_are_read_as_a_calendar_reads_them() {
    let date = ("[0-9]{4}", select(vec!["01", "02", "06", "11", "12", "00", "13"]), "0[0-9]|[12][0-9]|3[01]");
    let time = (
        "[01][0-9]|2[0-4]",
        "[0-5][0-9]",
        "[0-5][0-9]|60",
        "(\\.[0-9]{1,12})?",
        "Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]",
    );
    for_all(&(date, time), |((year, month, day), (hour, minute, second, fraction, offset))| {
        let date = format!("{year}-{month}-{day}");
        prop_assert_eq!(Date::parse(&date).is_some(), date.parse::<jiff::civil::Date>().is_ok(), "{}", date);
        let text = format!("{date}T{hour}:{minute}:{second}{fraction}{offset}");
        let ours = Instant::parse(&text);
        // Of finer digits than nine it knows nothing, nor of a second 60 that we refuse.
        let cut = if fraction.len() > 10 { &fraction[..10] } else { &fraction };
        let theirs = format!("{date}T{hour}:{minute}:{second}{cut}{offset}").parse::<jiff::Timestamp>();
        if let (Some(ours), Ok(theirs)) = (ours, &theirs) {
            let micros = theirs.as_nanosecond().div_euclid(1_000);
            prop_assert_eq!(i128::from(ours.micros()), micros, "{}", text);
        }
        prop_assert!(ours.is_some() || second == "60" || theirs.is_err(), "{text}");
        prop_assert!(ours.is_none() || theirs.is_ok() || !("0001".."9999").contains(&year.as_str()), "{text}");
        Ok(())
    });
}
