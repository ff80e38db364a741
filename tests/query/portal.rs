//! A service with known balances, and what is asked of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headroom::domain::Partitioner;
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "a secret of thirty-two bytes or more";

/// A demo that has taken all its events in.
pub(crate) struct Portal {
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
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The lines of the rows, by their order.
    pub(crate) fn lines(&self) -> Vec<i64> {
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
    for (customer, month, last, status) in [(17, 11, 30, "CLOSED"), (18, 12, 31, "FINALIZED")] {
        let id = run_beside(customer);
        let fact = json!({"version": 1, "billRunId": id, "billingCycleId": 4, "status": status,
            "periodStartDate": format!("2026-{month}-01"), "periodEndDate": format!("2026-{month}-{last}")});
        events.push((id, "bill-run.changed", fact));
    }
    events
}

/// A bill run that comes in on this customer's partition, and so after what was sent of the customer before.
pub(crate) fn run_beside(customer: i64) -> i64 {
    // As many partitions as the demo has.
    let lives = |key: i64| Partitioner::Murmur2.partition(key.to_string().as_bytes(), 8);
    (40..).find(|run| lives(*run) == lives(customer)).unwrap()
}

pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", crate::ports::free_port())
}

fn headroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(arguments).env_clear().env("HEADROOM_AUTH__HS256_SECRET", SECRET);
    command
}

pub(crate) fn token(arguments: &[&str]) -> String {
    let output = headroom(&[&["token"], arguments].concat()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Portal {
    pub(crate) fn open() -> Portal {
        Portal::open_with(&[])
    }

    /// With these settings, each a key and a value.
    pub(crate) fn open_with(settings: &[&str]) -> Portal {
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
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.by_ref().find(|line| line.starts_with("All events are in.")).expect("it takes the events in");
        // Its status lines end there; what is left of them fits the pipe.
        let portal = Portal { process, address, _events: file };
        // A bill run comes in on one partition and takes effect on the others a moment later.
        let all = token(&[]);
        for _ in 0..600 {
            if portal.get("?page=1&pageSize=10", &all).lines().len() == 4 {
                return portal;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the rows do not come: {}", portal.get("?page=1&pageSize=10", &all).text);
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build());
        let mut answer = agent.run(request.body(()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    /// A connection on which nothing was said yet.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends these bytes as they are, and gives what comes back until the connection ends.
    pub(crate) fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        let mut answer = Vec::new();
        // Who refuses a head early may close before all of it is sent; what came back by then counts.
        let _ = stream.write_all(request);
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    pub(crate) fn get(&self, query: &str, token: &str) -> Answer {
        let path = format!("/inclusive-usage-balances{query}");
        self.send("GET", &path, &[("Authorization", &format!("Bearer {token}"))])
    }
}
