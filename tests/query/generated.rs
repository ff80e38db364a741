//! Requests that are nearly right, by the thousand: none is answered by a fault of the service, by nothing at all, or by a
//! row outside its token. `CASES` sets how many.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::portal::{Portal, SECRET, run_beside};

/// How many requests without `CASES`.
const CASES: u32 = 2_000;
/// Customer, contract owner and UPIs of the rows that there are.
const ROWS: [(i64, i64, &[i64]); 2] = [(17, 100, &[11, 12, 13]), (18, 200, &[21])];

/// What a token opens; `None` when it is a bad one.
type Opens = Option<Vec<i64>>;

fn ids() -> impl Strategy<Value = Option<Vec<i64>>> {
    prop::option::of(prop::collection::vec(prop::sample::select(vec![17, 18, 100, 200, 0, i64::MAX]), 0..4))
}

/// A token, whether its signature and claims are good, and what it opens then.
fn tokens() -> impl Strategy<Value = (String, Opens)> {
    let bad = prop::sample::select(vec!["exp", "nbf", "scope", "shape", "key", "algorithm", "cut"]);
    let faults = prop_oneof![5 => Just(""), 1 => bad];
    (ids(), ids(), faults, any::<bool>()).prop_map(|(customers, owners, fault, as_text)| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let list = |ids: &Option<Vec<i64>>| match ids {
            None => Value::Null,
            Some(ids) => ids.iter().map(|id| if as_text { json!(id.to_string()) } else { json!(id) }).collect(),
        };
        let mut claims = json!({"exp": now + 3_600, "scope": "x balances:read",
            "customer_ids": list(&customers), "contract_owner_ids": list(&owners)});
        match fault {
            "exp" => claims["exp"] = json!(now - 3_600),
            "nbf" => claims["nbf"] = json!(now + 3_600),
            "scope" => claims["scope"] = json!("balances:readers"),
            "shape" => claims["customer_ids"] = json!({"17": 17}),
            _ => {}
        }
        let secret = if fault == "key" { "another" } else { SECRET };
        let algorithm = if fault == "algorithm" { Algorithm::HS512 } else { Algorithm::HS256 };
        let key = EncodingKey::from_secret(secret.as_bytes());
        let mut token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
        if fault == "cut" {
            token.truncate(token.len() / 2);
        }
        let within = |ids: &Option<Vec<i64>>, id: i64| ids.as_ref().is_none_or(|ids| ids.contains(&id));
        let open = ROWS.iter().filter(|(customer, owner, _)| within(&customers, *customer) && within(&owners, *owner));
        let open = open.flat_map(|(_, _, lines)| lines.iter().copied()).collect();
        (token, fault.is_empty().then_some(open))
    })
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        14 => "(in:)?(1|2|9|11|12|13|17|18|21|70)(,(1|9|17|18|21)){0,2}".prop_map(String::into_bytes),
        2 => "(in:|in%3A)?[0-9,+:% -]{0,8}".prop_map(|text| text.replace(' ', "%20").into_bytes()),
        2 => "(billRunId|usageProductInventoryId|periodStartDate)(:desc|:asc|:up)?(,periodEndDate)?".prop_map(String::into_bytes),
        1 => prop::sample::select(vec!["%", "%4", "%zz", "%00", "%ff%fe", "%F0%9F%98%80", "9223372036854775808", "-1",
            "%2525", "in:", "in:,", "1%0d%0aX:1", "null", "1e3", "0x1"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| {
            // What would end the line makes another request of it.
            bytes.into_iter().filter(|byte| ![b' ', b'\r', b'\n'].contains(byte)).collect()
        }),
        1 => (1_usize..3_000).prop_map(|count| {
            format!("in:{}", (0..count).map(|id| id.to_string()).collect::<Vec<_>>().join(",")).into_bytes()
        }),
    ]
}

fn queries() -> impl Strategy<Value = Vec<u8>> {
    // What a token limits is asked for most.
    let names = prop_oneof![2 => Just("customerId"), 3 => prop::sample::select(vec![
        "customerId",
        "siteId",
        "usageProductInventoryId",
        "billRunId",
        "assignmentId",
        "inclusiveUsagePlanId",
        "componentId",
        "sort",
        "fields",
        "page",
        "pageSize",
        "custom%65rId",
        "colour",
        "",
    ])];
    let odd = prop::sample::select(vec!["page=2&pageSize=1", "page=2147483647&pageSize=1000", ""]);
    let start = prop_oneof![4 => Just("page=1&pageSize=10"), 1 => odd];
    // Runs that are not open are asked for by name only.
    let (closed, finalized) = (run_beside(17), run_beside(18));
    let runs =
        prop::sample::select(vec![closed.to_string(), finalized.to_string(), format!("in:9,{closed},{finalized}")]);
    let pairs = prop_oneof![
        6 => (names, values()),
        1 => runs.prop_map(|runs| ("billRunId", runs.into_bytes())),
    ];
    (start, prop::collection::vec(pairs, 0..3)).prop_map(|(start, pairs)| {
        let mut query = start.as_bytes().to_vec();
        for (name, value) in pairs {
            query.extend([b"&", name.as_bytes(), b"=", &value].concat());
        }
        query
    })
}

fn requests() -> impl Strategy<Value = (Vec<u8>, Opens)> {
    let methods = prop_oneof![8 => Just("GET"), 1 => prop::sample::select(vec!["HEAD", "POST", "OPTIONS"])];
    let schemes =
        prop_oneof![8 => Just("Bearer "), 1 => prop::sample::select(vec!["bearer  ", "Basic ", "", "Bearer"])];
    let extra = prop::sample::select(vec![
        "",
        "Prefer: count=exact\r\n",
        "Prefer: count=exact;x=\"\r\n",
        "Prefer: \u{ff}, count=exact\r\n",
        "Accept: text/html\r\n",
        "Accept-Encoding: br;q=x\r\n",
        "Accept-Encoding: identity;q=0, *;q=0\r\n",
        "Authorization: Bearer x\r\n",
        "Range: bytes=0-1\r\n",
        "If-None-Match: *\r\n",
    ]);
    (methods, queries(), schemes, tokens(), extra).prop_map(|(method, query, scheme, (token, opens), extra)| {
        let head = format!("Host: x\r\nAuthorization: {scheme}{token}\r\n{extra}Connection: close\r\n\r\n");
        let path = b" /inclusive-usage-balances?";
        let request = [method.as_bytes(), path, &query, b" HTTP/1.1\r\n", head.as_bytes()].concat();
        let is_bearer = scheme.trim_end().eq_ignore_ascii_case("bearer") && scheme.ends_with(' ');
        (request, opens.filter(|_| is_bearer && !extra.starts_with("Authorization")))
    })
}

/// Status, head and body of an answer.
fn parts(answer: &[u8]) -> Option<(u16, String, String)> {
    let answer = String::from_utf8_lossy(answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_ascii_lowercase(), body.to_owned()))
}

#[test]
fn near_valid_requests_are_answered_or_refused() {
    let portal = Portal::open();
    let cases = std::env::var("CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let met = std::cell::RefCell::new(std::collections::BTreeMap::<u16, u32>::new());
    let of_run = std::cell::RefCell::new(std::collections::BTreeMap::<i64, u32>::new());
    let judged = runner.run(&requests(), |(request, opens)| {
        let answer = portal.raw(&request);
        let Some((status, head, body)) = parts(&answer) else {
            return Err(TestCaseError::fail(format!("no answer, but {answer:?}")));
        };
        *met.borrow_mut().entry(status).or_default() += 1;
        prop_assert!([200, 400, 401, 403, 405, 414, 431].contains(&status), "status {status}: {body}");
        prop_assert!(status != 200 || opens.is_some(), "a bad token was answered: {body}");
        if let (200, Some(open), false) = (status, opens, body.is_empty()) {
            let rows: Vec<Value> =
                serde_json::from_str(&body).map_err(|error| TestCaseError::fail(format!("{error}: {body}")))?;
            // Of the open run, the closed one and the finalized one.
            let most = 3 * open.len();
            prop_assert!(rows.len() <= most, "{open:?} is open: {body}");
            for run in rows.iter().filter_map(|row| row["billRunId"].as_i64()) {
                *of_run.borrow_mut().entry(run).or_default() += 1;
            }
            for line in rows.iter().filter_map(|row| row["usageProductInventoryId"].as_i64()) {
                prop_assert!(open.contains(&line), "{line} is outside {open:?}");
            }
            let count = head.lines().find_map(|line| line.strip_prefix("x-total-count: "));
            prop_assert!(count.is_none_or(|count| count.parse().is_ok_and(|count: usize| count <= most)));
        }
        Ok(())
    });
    let met = met.into_inner();
    if let Err(error) = judged {
        panic!("{error}");
    }
    println!("{cases} requests by status: {met:?}; rows by bill run: {:?}", of_run.borrow());
    for run in [9, run_beside(17), run_beside(18)] {
        assert!(of_run.borrow().contains_key(&run), "no row of bill run {run} is met: {of_run:?}");
    }
    // A generator that no longer makes what it is for proves nothing.
    for status in [200, 400, 401, 403, 405] {
        assert!(met.get(&status).is_some_and(|count| *count > cases / 200), "{status} is hardly met: {met:?}");
    }
}
