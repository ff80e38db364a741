//! What a portal reads: rows, pages, filters, tokens and refusals.

use serde_json::{Value, json};

use crate::portal::{Answer, Portal, token};

#[test]
fn a_portal_reads_balances() {
    let portal = Portal::open();
    let all = token(&[]);

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

    // What is given stays in the links as it was given.
    let page = portal.get("?customerId=in%3a17%2C18&page=2&fields=billRunId&pageSize=1", &all);
    let kept = "customerId=in%3a17%2C18&fields=billRunId&pageSize=1>";
    for (page_of, relation) in [(1, "first"), (1, "prev"), (3, "next")] {
        let link = format!("</inclusive-usage-balances?page={page_of}&{kept}; rel=\"{relation}\"");
        assert!(page.header("link").contains(&link), "{link} is not in {}", page.header("link"));
    }
    let first = portal.get("?page=1&pageSize=10", &all);
    assert_eq!(first.header("link").matches("rel=").count(), 1, "{}", first.header("link"));

    // The count is of the rows after filters and token, and is there on demand only.
    let counted = |preference: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let path = "/inclusive-usage-balances?page=2&pageSize=1&siteId=in:1,3";
        let answer = portal.send("GET", path, &[("Authorization", &bearer), ("Prefer", preference)]);
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.header("x-total-count").to_owned(), answer.header("preference-applied").to_owned())
    };
    let of = |count: &str| (count.to_owned(), "count=exact".to_owned());
    assert_eq!(counted("count=exact", &all), of("3"));
    assert_eq!(counted("respond-async, count=exact", &token(&["--customer-ids", "17"])), of("2"));
    assert_eq!(counted("count=exact", &token(&["--contract-owner-ids", "200"])), of("1"));
    for other in ["count=planned, return=minimal", r#"a="b, count=exact""#, r#"a="b\", count=exact", c=d"#] {
        assert_eq!(counted(other, &all), (String::new(), String::new()), "{other}");
    }

    // Bodies are packed on demand.
    // Whoever says that nothing will do gets them as they are.
    let of_none =
        [("identity", ""), ("*;q=0", ""), ("identity;q=0", ""), ("gzip;q=0, br;q=0, *;q=0", ""), ("zstd", "")];
    for (asked, given) in [("gzip", "gzip"), ("br", "br"), ("br, gzip;q=0.5", "br")].into_iter().chain(of_none) {
        let head =
            format!("GET /openapi.json HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {asked}\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8_lossy(&portal.raw(head.as_bytes())).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{asked}: {answer}");
        let encoding = answer.lines().find_map(|line| line.strip_prefix("content-encoding: ")).unwrap_or_default();
        assert_eq!(encoding, given, "{asked}");
    }

    // Errors are kept by nobody, and say how to ask.
    let bad = portal.send("GET", "/inclusive-usage-balances", &[]);
    assert_eq!((bad.header("cache-control"), bad.header("www-authenticate")), ("no-store", "Bearer"));
    for path in ["/nothing", "/inclusive-usage-balances?page=%zz"] {
        assert_eq!(portal.send("GET", path, &[("Authorization", &bearer)]).header("cache-control"), "no-store");
    }
    let head = portal.send("HEAD", "/inclusive-usage-balances?page=x", &[("Authorization", &bearer)]);
    assert_eq!((head.status, head.text.as_str()), (400, ""));
}
