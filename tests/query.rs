//! The query as a portal meets it: a service with known balances, asked over HTTP (`domain.md section 8`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

const SECRET: &str = "a secret of thirty-two bytes or more";

/// A demo that has taken all its events in.
struct Portal {
    process: Child,
    address: String,
    _events: tempfile::NamedTempFile,
}

impl Drop for Portal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An answer, whatever its status.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The lines of the rows, by their order.
    fn lines(&self) -> Vec<i64> {
        let rows = self.json();
        let of = |row: &Value| row["usageProductInventoryId"].as_i64().unwrap();
        rows.as_array().unwrap_or_else(|| panic!("{}", self.text)).iter().map(of).collect()
    }
}

fn events() -> Vec<(i64, &'static str, Value)> {
    let mut events = vec![(
        9,
        "bill-run.changed",
        json!({"version": 1, "billRunId": 9, "billingCycleId": 4, "periodStartDate": "2026-10-01",
            "periodEndDate": "2026-10-31", "status": "OPEN"}),
    )];
    for (customer, owner, lines) in [(17, 100, vec![(11, 1), (12, 1), (13, 2)]), (18, 200, vec![(21, 3)])] {
        let fact = json!({"version": 1, "customerId": customer, "billingCycleId": 4, "contractOwnerId": owner});
        events.push((customer, "customer.changed", fact));
        for (line, site) in lines {
            let fact = json!({"version": 1, "usageProductInventoryId": line, "siteId": site, "customerId": customer,
                "usageProductId": 5});
            events.push((customer, "inventory.changed", fact));
        }
    }
    let plan = |id: i64, kind: &str, allowance: i64| {
        json!({"inclusiveUsagePlanId": id, "components":
            [{"componentId": 1, "byValue": false, "chargingType": kind, "allowance": allowance}]})
    };
    for (customer, id, more) in [
        (17, 1, json!({"assignmentLevel": "CUSTOMER", "plan": plan(70, "DURATION", 6_000)})),
        (17, 2, json!({"assignmentLevel": "SITE", "siteId": 1, "plan": plan(71, "MB", 500)})),
        (
            17,
            3,
            json!({"assignmentLevel": "INVENTORY", "usageProductInventoryId": 13, "plan": plan(72, "ONE_OFF", 10)}),
        ),
        (18, 4, json!({"assignmentLevel": "CUSTOMER", "plan": plan(70, "DURATION", 6_000)})),
    ] {
        let mut fact = json!({"version": 1, "assignmentId": id, "customerId": customer, "startDate": "2026-10-01"});
        for (name, value) in more.as_object().unwrap() {
            fact[name] = value.clone();
        }
        events.push((customer, "assignment.changed", fact));
    }
    for (line, site, kind, quantity) in [(11, 1, "DURATION", json!(90.5)), (12, 1, "MB", json!(0.25))] {
        let usage = json!({"customerId": 17, "siteId": site, "usageProductInventoryId": line, "usageProductId": 5,
            "startTime": "2026-10-05T10:00:00Z", "chargingType": kind, "quantity": quantity, "price": 0});
        events.push((17, "usage.recorded", usage));
    }
    events
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn headroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(arguments).env_clear().env("HEADROOM_AUTH__HS256_SECRET", SECRET);
    command
}

fn token(arguments: &[&str]) -> String {
    let output = headroom(&[&["token"], arguments].concat()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Portal {
    fn open() -> Portal {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (number, (key, kind, data)) in events().into_iter().enumerate() {
            let value =
                json!({"specversion": "1.0", "id": number.to_string(), "source": "/t", "type": kind, "data": data});
            writeln!(file, "{}", json!({"key": key.to_string(), "value": value, "timestamp": 1_791_200_000_000_i64}))
                .unwrap();
        }
        let (address, admin) = (free_address(), free_address());
        let name = file.path().to_str().unwrap().to_owned();
        let mut command = headroom(&["demo", "--input", &name, "--listen", &address, "--admin-listen", &admin]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.by_ref().find(|line| line.starts_with("All events are in.")).expect("it takes the events in");
        // Its status lines end there; what is left of them fits the pipe.
        Portal { process, address, _events: file }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build());
        let mut answer = agent.run(request.body(()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    fn get(&self, query: &str, token: &str) -> Answer {
        let path = format!("/inclusive-usage-balances{query}");
        self.send("GET", &path, &[("Authorization", &format!("Bearer {token}"))])
    }
}

#[test]
fn a_portal_reads_balances() {
    let portal = Portal::open();
    let all = token(&[]);

    // A bill run comes in on one partition and takes effect on the others a moment later.
    for _ in 0..600 {
        if portal.get("?page=1&pageSize=10", &all).lines().len() == 4 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }

    // A row, whole: the line's shared, site and own bundles, with what is left to the last digit.
    let answer = portal.get("?page=1&pageSize=10&usageProductInventoryId=11", &all);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let component = |kind: &str, allowance: Value, remaining: Value| {
        json!([{"componentId": 1, "byValue": false, "chargingType": kind, "allowance": allowance, "remaining": remaining,
            "startDate": "2026-10-01 00:00:00", "endDate": "2026-10-31 23:59:59"}])
    };
    let entry = |id: i64, level: &str, plan: i64, components: Value| {
        json!({"assignmentId": id, "assignmentLevel": level, "assignmentStartDate": "2026-10-01",
            "assignmentEndDate": null, "inclusiveUsagePlanId": plan, "components": components})
    };
    let row = json!([{"billRunId": 9, "periodStartDate": "2026-10-01", "periodEndDate": "2026-10-31",
        "usageProductInventoryId": 11, "inclusiveUsageBalanceAssignments": [
            entry(2, "SITE", 71, component("MB", json!(500), json!(499.75))),
            entry(1, "CUSTOMER", 70, component("DURATION", json!(6000), json!(5909.5)))]}]);
    assert_eq!(answer.json(), row);

    // Pages, their links, and the count on demand.
    assert_eq!(portal.get("?page=1&pageSize=10", &all).lines(), [11, 12, 13, 21]);
    let page = portal.get("?page=2&pageSize=1&customerId=17", &all);
    assert_eq!(page.lines(), [12]);
    for relation in ["first", "prev", "next"] {
        assert!(page.header("link").contains(&format!("rel=\"{relation}\"")), "{}", page.header("link"));
    }
    assert!(!portal.get("?page=3&pageSize=1&customerId=17", &all).header("link").contains("next"));
    assert_eq!(portal.get("?page=9&pageSize=10", &all).json(), json!([]));

    // Filters, order and fields.
    for (query, lines) in [
        ("customerId=18", vec![21]),
        ("customerId=in:17,18", vec![11, 12, 13, 21]),
        ("siteId=1", vec![11, 12]),
        ("usageProductInventoryId=in:13,21,99", vec![13, 21]),
        ("billRunId=9&customerId=17&siteId=2", vec![13]),
        ("billRunId=8", vec![]),
        ("sort=usageProductInventoryId:desc", vec![21, 13, 12, 11]),
    ] {
        assert_eq!(portal.get(&format!("?page=1&pageSize=10&{query}"), &all).lines(), lines, "{query}");
    }
    let narrow = portal.get("?page=1&pageSize=1&fields=usageProductInventoryId", &all);
    assert_eq!(narrow.json(), json!([{"usageProductInventoryId": 11}]));

    // Tokens open what they name, and nothing else.
    assert_eq!(portal.get("?page=1&pageSize=10", &token(&["--customer-ids", "18"])).lines(), [21]);
    assert_eq!(portal.get("?page=1&pageSize=10", &token(&["--contract-owner-ids", "100"])).lines(), [11, 12, 13]);
    assert_eq!(portal.get("?page=1&pageSize=10&customerId=17", &token(&["--customer-ids", "18"])).json(), json!([]));
    let refused = |answer: Answer, status: u16, parts: &[&str]| {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("content-type"), "application/json");
        let body = answer.json();
        let message = body["message"].as_str().unwrap();
        assert!(body["error"].is_string(), "{body}");
        for part in parts {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    };
    refused(portal.send("GET", "/inclusive-usage-balances?page=1&pageSize=1", &[]), 401, &["Authorization"]);
    refused(portal.get("?page=x", "no.token.this"), 401, &["token"]);
    refused(portal.get("?page=x", &token(&["--scope", "other"])), 403, &["balances:read"]);
    for (query, parts) in [
        ("?pageSize=10", vec!["page"]),
        ("?page=1", vec!["pageSize"]),
        ("?page=0&pageSize=10", vec!["page", "0"]),
        ("?page=1&pageSize=x", vec!["pageSize", "x"]),
        ("?page=1&page=2&pageSize=1", vec!["page"]),
        ("?page=1&pageSize=1&colour=red", vec!["colour"]),
        ("?page=1&pageSize=1&customerId=abc", vec!["customerId", "abc"]),
        ("?page=1&pageSize=1&customerId=in:1,,2", vec!["customerId"]),
        ("?page=1&pageSize=1&sort=height", vec!["sort", "height"]),
        ("?page=1&pageSize=1&fields=height", vec!["fields", "height"]),
    ] {
        refused(portal.get(query, &all), 400, &parts);
    }
    refused(portal.send("GET", "/nothing", &[]), 404, &["/nothing"]);
    let posted = portal.send("DELETE", "/inclusive-usage-balances", &[]);
    assert_eq!(posted.header("allow"), "GET, HEAD");
    refused(posted, 405, &[]);
    let bearer = format!("Bearer {all}");
    let head = portal.send("HEAD", "/inclusive-usage-balances?page=1&pageSize=1", &[("Authorization", &bearer)]);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(portal.send("GET", "/openapi.json", &[]).json()["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
}
