//! How the parts of this process are, for `/health/live` and `/health/ready` (`domain.md section 9`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;

use super::metrics::{BROKER, PART_UP, STORE};

/// What the parts said last. Clones say and show the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Health {
    /// A health without parts, which is good.
    pub fn new() -> Health {
        Health::default()
    }

    /// A part that is there, and has not said yet that it is well.
    pub fn expect(&self, part: &'static str) {
        self.set(part, Some("starting".to_owned()));
    }

    /// A part is well.
    pub fn ok(&self, part: &'static str) {
        self.set(part, None);
    }

    /// A part is not well, and why, in one line.
    pub fn fault(&self, part: &'static str, why: &str) {
        self.set(part, Some(why.to_owned()));
    }

    /// What each part said last: `None` when it is well.
    pub fn parts(&self) -> BTreeMap<&'static str, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether every part is well.
    pub fn is_ready(&self) -> bool {
        self.parts().values().all(Option::is_none)
    }

    fn set(&self, part: &'static str, state: Option<String>) {
        if part == STORE || part == BROKER {
            gauge!(PART_UP, "part" => part).set(if state.is_none() { 1.0 } else { 0.0 });
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_part_is_well() {
        let health = Health::new();
        health.expect("store");
        assert!(!health.is_ready());
        health.ok("store");
        assert!(health.is_ready());
        health.fault("relay", "another holds the lease");
        assert_eq!(health.parts()["relay"].as_deref(), Some("another holds the lease"));
        assert!(!health.is_ready());
    }
}
