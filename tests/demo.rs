//! `headroom demo` as a person runs it: nothing but the program.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/ports.rs"]
mod ports;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.arg("demo").args(arguments).env_clear();
    command
}

fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free_port())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_plays_and_sums_up() {
    let (query, admin) = (free_address(), free_address());
    let output = demo(&["--for", "9s", "--listen", &query, "--admin-listen", &admin]).output().unwrap();
    let (said, wrong) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{wrong}");
    assert_eq!(wrong, "", "nothing goes wrong");
    assert!(said.contains("curl -s -H 'Authorization: Bearer "), "{said}");
    assert!(said.contains(&query) && said.contains(&admin), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("The end: ") && !last.starts_with("The end: 0 records"), "{last}");
}

#[test]
fn it_plays_ones_own_events_until_it_is_told_to_end() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let event = |kind: &str, id: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"{kind}","data":{data}}}"#)
    };
    let assignment = event(
        "assignment.changed",
        "a",
        r#"{"version":1,"assignmentId":1,"assignmentLevel":"CUSTOMER","customerId":17,"startDate":"2026-10-01","plan":
           {"inclusiveUsagePlanId":1,"components":[{"componentId":1,"byValue":false,"chargingType":"DURATION","allowance":600}]}}"#,
    )
    .replace('\n', "");
    let usage = event(
        "usage.recorded",
        "c",
        r#"{"customerId":17,"siteId":1,"usageProductInventoryId":11,"usageProductId":1,"startTime":"2026-10-02T09:00:00Z","chargingType":"DURATION","quantity":500,"price":0}"#,
    );
    for value in [&assignment, &usage, &usage] {
        writeln!(file, r#"{{"key":"17","value":{value},"timestamp":1790931700000}}"#).unwrap();
    }
    let (query, admin) = (free_address(), free_address());
    let name = file.path().to_str().unwrap();
    let mut command = demo(&["--input", name, "--listen", &query, "--admin-listen", &admin]);
    let mut demo = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Either may come first.
    let (mut alert, mut is_all) = (None, false);
    while alert.is_none() || !is_all {
        let line = lines.next().expect("an alert, and an end of the events");
        is_all |= line.starts_with("All events are in.");
        alert = alert.or(line.contains(" ! ").then_some(line));
    }
    let alert = alert.unwrap();
    assert!(alert.contains("customer 17: 16 % left of 10 min, of one site"), "{alert}");
    assert!(Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().unwrap().success());
    let last = lines.last().unwrap();
    assert!(last.contains("3 records in") && last.contains("1 usage events count"), "{last}");
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_wrong_is_one_line_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{{\"key\": \"1\", \"value\": {{}}}}\nno JSON").unwrap();
    let name = file.path().to_str().unwrap().to_owned();
    let free = free_address();
    for (arguments, parts) in [
        (vec!["--listen", &address, "--admin-listen", &free], vec!["--listen", &address]),
        (vec!["--listen", &free, "--admin-listen", &address], vec!["--admin-listen", &address]),
        (vec!["--input", &name], vec!["--input", &name, "line 2"]),
        (vec!["--input", "/not/there"], vec!["--input /not/there", "No such file"]),
    ] {
        let output = demo(&arguments).output().unwrap();
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {wrong}");
        assert_eq!(wrong.lines().count(), 1, "{wrong}");
        for part in parts {
            assert!(wrong.contains(part), "{arguments:?} gave: {wrong}");
        }
    }
}
