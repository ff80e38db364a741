//! Who knocks wrongly: heads that are too large, senders and readers that are too slow, bytes that are no text, and ways
//! to write a path or a parameter otherwise than it is written. Each is answered or cut off, and the next one is served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::portal::{Portal, token};

const GOOD: &str = "?page=1&pageSize=10";

/// The status of an answer, and its body; `None` when the connection ended without one.
fn answered(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

fn request(target: &[u8], token: &str, more: &[u8]) -> Vec<u8> {
    let authorization = format!(" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    [b"GET ", target, authorization.as_bytes(), more, b"Connection: close\r\n\r\n"].concat()
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let portal = Portal::open();
    let all = token(&[]);
    for (bytes, status, message) in [
        (33 * 1024, 414, "the URL has 33837 bytes; 32768 are the most"),
        // No server reads on until it knows how long it is.
        (66 * 1024, 414, ""),
        (2 * 1024 * 1024, 431, ""),
    ] {
        let url = format!("/inclusive-usage-balances{GOOD}&{}", "x".repeat(bytes));
        let (met, body) = answered(&portal.raw(&request(url.as_bytes(), &all, b""))).expect("an answer");
        assert!(met == status || (message.is_empty() && [414, 431].contains(&met)), "{bytes}: {met}");
        assert!(body.contains(message), "{body}");
    }
    let path = format!("/inclusive-usage-balances{GOOD}");
    let large = |bytes: usize| format!("X-Large: {}\r\n", "x".repeat(bytes));
    for more in [large(66 * 1024), large(2 * 1024 * 1024), "X-Many: 1\r\n".repeat(200)] {
        let answer = portal.raw(&request(path.as_bytes(), &all, more.as_bytes()));
        assert_eq!(answered(&answer).map(|(status, _)| status), Some(431), "{} bytes of headers", more.len());
    }
    assert_eq!(portal.get(GOOD, &all).lines(), [11, 12, 13, 21]);
}

#[test]
fn a_long_list_of_ids_is_refused_by_its_limit() {
    let portal = Portal::open();
    let all = token(&[]);
    let list = |count: usize| (0..count).map(|id| (id + 11).to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(
        portal.get(&format!("{GOOD}&usageProductInventoryId=in:{}", list(1_000)), &all).lines(),
        [11, 12, 13, 21]
    );
    for count in [1_001, 5_000] {
        let answer = portal.get(&format!("{GOOD}&usageProductInventoryId=in:{}", list(count)), &all);
        let message = format!("usageProductInventoryId: {count} ids are more than 1000; ask several times");
        assert_eq!((answer.status, answer.json()), (400, json!({"error": "Bad Request", "message": message})));
    }
}

#[test]
fn odd_bytes_and_odd_ways_to_write_are_answered_and_never_by_a_fault() {
    let portal = Portal::open();
    let all = token(&[]);
    let balances = "/inclusive-usage-balances";
    for (target, statuses) in [
        // Written otherwise, and the same.
        (format!("{balances}{GOOD}&customerId=%31%37").into_bytes(), &[200][..]),
        (format!("{balances}?p%61ge=1&pageSize=10").into_bytes(), &[200]),
        (format!("http://other/{balances}{GOOD}").replace("//inc", "/inc").into_bytes(), &[200]),
        // Another path, however it is written.
        (format!("/{balances}{GOOD}").into_bytes(), &[404]),
        (format!("{balances}/{GOOD}").into_bytes(), &[404]),
        (format!("{balances}%2f{GOOD}").into_bytes(), &[404]),
        (format!("/x/..{balances}{GOOD}").into_bytes(), &[404]),
        (format!("/%2e%2e{balances}{GOOD}").into_bytes(), &[404]),
        (format!("/inclusive-usage-balance%73{GOOD}").into_bytes(), &[200, 404]),
        // Twice decoded it would be a good one.
        (format!("{balances}{GOOD}&customerId=%2531").into_bytes(), &[400]),
        (format!("{balances}?%2570age=1&pageSize=10").into_bytes(), &[400]),
        // A name twice, once in disguise.
        (format!("{balances}{GOOD}&customerId=17&customer%49d=18").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=17;customerId=18").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId[]=17").into_bytes(), &[400]),
        // No text, and bytes that end something elsewhere.
        (format!("{balances}{GOOD}&customerId=%ff%fe").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%c0%b1").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%ed%a0%80").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=17%00").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&sort=billRunId%0d%0aX-Own:1").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%D9%A1%D9%A7").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%EF%BC%91").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=1%").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%u0031").into_bytes(), &[400]),
        (format!("{balances}{GOOD}&customerId=%3117+").into_bytes(), &[400]),
        ([balances.as_bytes(), GOOD.as_bytes(), b"&customerId=\xff\xfe"].concat(), &[400]),
        ([balances.as_bytes(), GOOD.as_bytes(), b"&customerId=\xd9\xa1"].concat(), &[400]),
        ([b"/\xff", balances.as_bytes()].concat(), &[400, 404]),
        (b"*".to_vec(), &[400, 404]),
        (b"".to_vec(), &[400]),
        ([balances.as_bytes(), GOOD.as_bytes(), b"#customerId=17"].concat(), &[200, 400]),
    ] {
        let shown = String::from_utf8_lossy(&target).into_owned();
        let answer = portal.raw(&request(&target, &all, b""));
        let (status, body) = answered(&answer).unwrap_or_else(|| panic!("{shown}: no answer"));
        assert!(statuses.contains(&status), "{shown}: {status}, {body}");
        assert!(!String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("\r\nx-own"), "{shown}");
    }
    let path = format!("{balances}{GOOD}");
    for (more, statuses) in [
        (&b"X-Odd: \xff\xfe\r\n"[..], &[200][..]),
        (b"Prefer: \xff, count=exact\r\n", &[200]),
        (b"Accept-Encoding: \xff\r\n", &[200]),
        (b"Authorization: Bearer \xff\r\n", &[401]),
        (b"X\xff: 1\r\n", &[400]),
        (b"X-Nul: \0\r\n", &[400]),
        (b"X-Folded: 1\r\n 2\r\n", &[200, 400]),
        (b" X-Blank: 1\r\n", &[400]),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", &[400]),
        (b"Content-Length: -1\r\n", &[400]),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", &[200, 400]),
        (b"Transfer-Encoding: chunked, x\r\n", &[400]),
        (b"Expect: 100-continue\r\n", &[200]),
        (b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", &[200]),
    ] {
        let shown = String::from_utf8_lossy(more).into_owned();
        let answer = portal.raw(&request(path.as_bytes(), &all, more));
        let (status, body) = answered(&answer).unwrap_or_else(|| panic!("{shown}: no answer"));
        assert!(statuses.contains(&status), "{shown}: {status}, {body}");
    }
    for no_request in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\n\n\0\0\0",
        b"\r\n\r\n\r\n\0",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let met = answered(&portal.raw(no_request)).map(|(status, _)| status);
        let shown = String::from_utf8_lossy(no_request);
        assert!(met.is_none_or(|status| (400..500).contains(&status)), "{shown}: {met:?}");
    }
    assert_eq!(portal.get(GOOD, &all).lines(), [11, 12, 13, 21]);
}

/// Waits until the other side ends the connection, whatever it says before.
fn ended(mut stream: TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    // A connection that is cut off while something unread lies in it ends by a reset.
    if let Err(error) = stream.read_to_end(&mut told) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is held for ever");
    }
    told
}

#[test]
fn slow_senders_and_slow_readers_hold_no_place() {
    let portal = Portal::open_with(&["http.connections=2", "http.head_time=300ms", "http.write_time=300ms"]);
    let all = token(&[]);
    // Two that send a byte now and then would hold both places.
    let slow: Vec<TcpStream> = (0..2).map(|_| portal.connect()).collect();
    for mut stream in slow.iter().map(|stream| stream.try_clone().unwrap()) {
        std::thread::spawn(move || {
            for byte in b"GET /openapi.json HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
    }
    assert_eq!(portal.get(GOOD, &all).lines(), [11, 12, 13, 21]);
    for stream in slow {
        let told = String::from_utf8_lossy(&ended(stream)).into_owned();
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    }
    // Two that ask for a lot and read none of it.
    let slow: Vec<TcpStream> = (0..2).map(|_| portal.connect()).collect();
    let asks = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20_000);
    for mut stream in slow.iter().map(|stream| stream.try_clone().unwrap()) {
        let asks = asks.clone();
        std::thread::spawn(move || stream.write_all(&asks));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(portal.get(GOOD, &all).lines(), [11, 12, 13, 21]);
}
