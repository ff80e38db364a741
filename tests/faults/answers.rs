//! What portals read afterwards: every balance that the query answers is the one that the records come to.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ports::free_port;
use crate::scene::Scene;

/// How long the reader may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reader that is killed when it is no longer asked.
struct Reader {
    process: Child,
    base: String,
    bearer: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Reader {
    fn start(scene: &Scene) -> Reader {
        let address = format!("127.0.0.1:{}", free_port());
        let bearer = format!("Bearer {}", scene.fleet.say(&["token"]));
        let process = scene
            .fleet
            .command(&["run", "--role", "reader", "--listen", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Reader { process, base: format!("http://{address}/inclusive-usage-balances"), bearer }
    }

    /// A page of a customer's rows; `None` while there is no answer.
    fn page(&self, customer: i64, page: usize) -> Option<Vec<Value>> {
        let url = format!("{}?page={page}&pageSize=1000&customerId={customer}", self.base);
        let mut answer = ureq::get(url).header("Authorization", &self.bearer).call().ok()?;
        Some(serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
    }

    /// All rows of a customer.
    fn rows(&self, customer: i64) -> Vec<Value> {
        let begun = Instant::now();
        let mut rows = Vec::new();
        loop {
            let Some(page) = self.page(customer, 1 + rows.len() / 1_000) else {
                assert!(begun.elapsed() < PATIENCE, "the reader does not answer");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let is_last = page.len() < 1_000;
            rows.extend(page);
            if is_last {
                return rows;
            }
        }
    }
}

/// Each balance that is answered to a question for these customers, by the name of its bucket: how often, and what was said.
pub(crate) fn answered(scene: &Scene, customers: impl Iterator<Item = i64>) -> BTreeMap<String, Vec<(Value, Value)>> {
    let reader = Reader::start(scene);
    let mut balances: BTreeMap<String, Vec<(Value, Value)>> = BTreeMap::new();
    for customer in customers {
        for row in reader.rows(customer) {
            for of in row["inclusiveUsageBalanceAssignments"].as_array().unwrap() {
                let (level, assignment) = (of["assignmentLevel"].as_str().unwrap(), &of["assignmentId"]);
                for component in of["components"].as_array().unwrap() {
                    let (id, start) = (&component["componentId"], component["startDate"].as_str().unwrap());
                    let bucket = format!("{customer}/{level}/{assignment}/{id}/{start}");
                    let said = (component["allowance"].clone(), component["remaining"].clone());
                    balances.entry(bucket).or_default().push(said);
                }
            }
        }
    }
    balances
}
