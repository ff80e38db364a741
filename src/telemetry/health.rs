//! How the parts of this process are, for `/health/live` and `/health/ready` (`domain.md section 9`).
//!
//! Several may report on one part, and it is well when none of them has a fault to tell: who says that all is well takes
//! back what he said himself, and nothing that another did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::gauge;

use super::metrics::{BROKER, PART_UP, REPLICA, STORE};

/// What the parts said last. Clones say and show the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<&'static str, Part>,
    /// How many reporters there ever were; the first is whoever reports without being one.
    reporters: u64,
}

#[derive(Debug, Default)]
struct Part {
    /// By reporter.
    faults: BTreeMap<u64, String>,
    /// A fault of this process that another start would mend.
    stuck: Option<String>,
}

impl Health {
    /// A health without parts, which is good.
    pub fn new() -> Health {
        Health::default()
    }

    /// A part that is there, and has not said yet that it is well.
    pub fn expect(&self, part: &'static str) {
        self.fault(part, "starting");
    }

    /// A part is well.
    pub fn ok(&self, part: &'static str) {
        self.say(part, 0, None);
    }

    /// A part is not well, and why, in one line.
    pub fn fault(&self, part: &'static str, why: &str) {
        self.say(part, 0, Some(why));
    }

    /// One of several who report on a part; it is well as far as he knows.
    pub fn reporter(&self, part: &'static str) -> Reporter {
        let mut state = self.state();
        state.reporters += 1;
        let id = state.reporters;
        drop(state);
        self.say(part, id, None);
        Reporter { health: self.clone(), part, id }
    }

    /// Whether a part hangs in this process, so that only another start helps, and why, in one line.
    pub fn stuck(&self, part: &'static str, why: Option<String>) {
        self.state().parts.entry(part).or_default().stuck = why;
    }

    /// What is wrong with each part: `None` when it is well.
    pub fn parts(&self) -> BTreeMap<&'static str, Option<String>> {
        let state = self.state();
        let told = |part: &Part| {
            let mut lines: Vec<&str> = Vec::new();
            for line in part.stuck.iter().chain(part.faults.values()) {
                if !lines.contains(&line.as_str()) {
                    lines.push(line);
                }
            }
            (!lines.is_empty()).then(|| lines.join("; "))
        };
        state.parts.iter().map(|(name, part)| (*name, told(part))).collect()
    }

    /// Whether a part is well, or not there.
    pub fn is_well(&self, part: &'static str) -> bool {
        self.state().parts.get(part).is_none_or(|part| part.stuck.is_none() && part.faults.is_empty())
    }

    /// Whether every part is well.
    pub fn is_ready(&self) -> bool {
        self.state().parts.values().all(|part| part.stuck.is_none() && part.faults.is_empty())
    }

    /// Whether no part hangs.
    pub fn is_live(&self) -> bool {
        self.state().parts.values().all(|part| part.stuck.is_none())
    }

    fn say(&self, name: &'static str, reporter: u64, fault: Option<&str>) {
        let mut state = self.state();
        let part = state.parts.entry(name).or_default();
        match fault {
            Some(why) => part.faults.insert(reporter, why.to_owned()),
            None => part.faults.remove(&reporter),
        };
        if [STORE, REPLICA, BROKER].contains(&name) {
            gauge!(PART_UP, "part" => name).set(if part.faults.is_empty() { 1.0 } else { 0.0 });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of several who report on a part. What he said is taken back when he is gone.
#[derive(Debug)]
pub struct Reporter {
    health: Health,
    part: &'static str,
    id: u64,
}

impl Reporter {
    /// The part is well, as far as he knows.
    pub fn ok(&self) {
        self.health.say(self.part, self.id, None);
    }

    /// It is not, and why, in one line.
    pub fn fault(&self, why: &str) {
        self.health.say(self.part, self.id, Some(why));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_part_is_well() {
        let health = Health::new();
        health.expect("store");
        assert!(!health.is_ready() && health.is_live());
        health.ok("store");
        assert!(health.is_ready());
        health.fault("relay", "another holds the lease");
        assert_eq!(health.parts()["relay"].as_deref(), Some("another holds the lease"));
        assert!(!health.is_ready() && health.is_well("store") && !health.is_well("relay"));
    }

    #[test]
    fn nobody_takes_back_what_another_said() {
        let health = Health::new();
        let (one, other) = (health.reporter("broker"), health.reporter("broker"));
        one.fault("refused");
        other.ok();
        health.ok("broker");
        assert_eq!(health.parts()["broker"].as_deref(), Some("refused"));
        other.fault("no answer");
        assert_eq!(health.parts()["broker"].as_deref(), Some("refused; no answer"));
        drop(one);
        assert_eq!(health.parts()["broker"].as_deref(), Some("no answer"));
        other.ok();
        assert!(health.is_ready());
    }

    #[test]
    fn what_hangs_is_neither_live_nor_ready() {
        let health = Health::new();
        health.ok("partitions");
        health.stuck("partitions", Some("partition 3 has not moved".to_owned()));
        assert!(!health.is_live() && !health.is_ready());
        health.ok("partitions");
        assert_eq!(health.parts()["partitions"].as_deref(), Some("partition 3 has not moved"));
        health.stuck("partitions", None);
        assert!(health.is_live() && health.is_ready());
    }
}
