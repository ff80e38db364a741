//! Waiting for something to become so.

use std::time::{Duration, Instant};

/// How long anything may take before the run has failed. No law, only an end to waiting: HEADROOM_TEST_PATIENCE seconds
/// where a machine is slow.
pub(crate) fn patience() -> Duration {
    let seconds =
        std::env::var("HEADROOM_TEST_PATIENCE").map_or(240, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// Waits until this is so.
pub(crate) fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < limit, "waited in vain for {limit:?} until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
