//! `/openapi.json` held to the service in both directions: what is described is so, and what is so is described.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::portal::{Answer, Portal, token};

const PATH: &str = "/inclusive-usage-balances";

/// What a reference stands for, else the value itself.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is nowhere")),
        None => schema,
    }
}

/// Holds an answer's value to its schema: the same fields, of the types that are described.
fn holds(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = resolved(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let fits = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(fits),
        one => fits(one),
    };
    assert!(fits, "{place}: {value} is no {}", schema["type"]);
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{place}: {value} is none of {values:?}");
    }
    match value {
        Value::Array(values) => {
            for value in values {
                holds(document, &schema["items"], value, &format!("{place}[]"));
            }
        }
        Value::Object(fields) => {
            let described = schema["properties"].as_object().unwrap();
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(fields), names(described), "{place}");
            for (name, value) in fields {
                holds(document, &described[name], value, &format!("{place}.{name}"));
            }
        }
        _ => {}
    }
}

/// Holds an answer to the description of its status.
fn held(document: &Value, operation: &Value, answer: &Answer, with_count: bool) -> u16 {
    let described = &operation["responses"][answer.status.to_string()];
    assert!(described.is_object(), "status {} is not described: {}", answer.status, answer.text);
    holds(document, &described["content"]["application/json"]["schema"], &answer.json(), "body");
    for name in described["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let is_there = answer.headers.contains_key(name);
        let on_demand = ["X-Total-Count", "Preference-Applied"].contains(&name.as_str());
        assert_eq!(is_there, with_count || !on_demand, "{} has {name}", answer.status);
    }
    let plain = ["content-type", "content-length", "cache-control", "date", "vary", "connection", "transfer-encoding"];
    for name in answer.headers.keys() {
        let known = described["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .any(|(of, _)| name.as_str().eq_ignore_ascii_case(of));
        assert!(known || plain.contains(&name.as_str()), "{}: {name} is not described", answer.status);
    }
    answer.status
}

#[test]
fn the_description_is_true_in_both_directions() {
    let portal = Portal::open();
    let document = portal.send("GET", "/openapi.json", &[]).json();
    let operation = &document["paths"][PATH]["get"];
    let all = token(&[]);
    let bearer = format!("Bearer {all}");

    // Every parameter that is described is taken, every one that must be given is missed, and no other is taken.
    let parameters = operation["parameters"].as_array().unwrap();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
        let name = parameter["name"].as_str().unwrap();
        let value = match name {
            "sort" => "periodStartDate:desc,billRunId:asc",
            "fields" => "billRunId,inclusiveUsageBalanceAssignments",
            _ => "1",
        };
        let rest = ["page", "pageSize"].into_iter().filter(|of| *of != name).map(|of| format!("{of}=1&"));
        let query = format!("?{}{name}={value}", rest.collect::<String>());
        assert_eq!(portal.get(&query, &all).status, 200, "{query}");
        let without = query.replace(&format!("{name}={value}"), "");
        let status = if parameter["required"] == true { 400 } else { 200 };
        assert_eq!(portal.get(&without, &all).status, status, "{without}");
    }
    let known = portal.get("?page=1&pageSize=1&colour=red", &all).json()["message"].as_str().unwrap().to_owned();
    let (_, known) = known.split_once("known are ").unwrap();
    let described: BTreeSet<&str> = parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect();
    assert_eq!(known.split(", ").collect::<BTreeSet<_>>(), described);

    // Every answer is as it is described, and every status that is described is met, but for those of a service in trouble.
    let other = format!("Bearer {}", token(&["--scope", "other"]));
    let long = format!("{PATH}?{}", "x".repeat(40_000));
    let large = "x".repeat(65_530);
    let good = format!("{PATH}?page=1&pageSize=10");
    let mut met = BTreeSet::from([500, 503]);
    for (method, path, headers, with_count) in [
        ("GET", good.as_str(), vec![("Authorization", bearer.as_str())], false),
        ("GET", &good, vec![("Authorization", &bearer), ("Prefer", "count=exact")], true),
        ("GET", PATH, vec![("Authorization", &bearer)], false),
        ("GET", &good, vec![], false),
        ("GET", &good, vec![("Authorization", &other)], false),
        ("DELETE", PATH, vec![], false),
        ("GET", &long, vec![], false),
        ("GET", &good, vec![("X-Large", large.as_str())], false),
    ] {
        met.insert(held(&document, operation, &portal.send(method, path, &headers), with_count));
    }
    let described: BTreeSet<u16> =
        operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect();
    assert_eq!(met, described);

    // Every path that is described is there.
    for path in document["paths"].as_object().unwrap().keys() {
        assert_ne!(portal.send("GET", path, &[]).status, 404, "{path}");
    }
}
