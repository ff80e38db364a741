//! How long an idle task waits for a larger batch. Under backlog large ones cost far less for each record, and how late one
//! record of many that are late anyway is does not matter. Only usage is waited for, and only while it comes: facts take more
//! memory, and others may have use for the batch.

use std::time::Duration;

use tokio::time::Instant;

/// How much usage must be sure to come. Some of a little may be markers of transactions, which never come.
const MUCH_USAGE: usize = 200;
/// How long the next of it is waited for.
const USAGE_WAIT: Duration = Duration::from_millis(50);
/// How long a batch is waited for that fills slowly.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// How the open batch of a partition pair fills.
pub(super) struct Filling {
    /// When the first record came into it.
    opened: Instant,
    /// The next offset of usage, and since when it is that.
    usage: (i64, Instant),
}

impl Filling {
    /// Of a partition pair whose usage is read on from here.
    pub(super) fn new(usage: i64, now: Instant) -> Filling {
        Filling { opened: now, usage: (usage, now) }
    }

    /// Another batch begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.opened = now;
    }

    /// Notes the next offset of usage.
    pub(super) fn note(&mut self, usage: i64, now: Instant) {
        if usage != self.usage.0 {
            self.usage = (usage, now);
        }
    }

    /// Whether an idle task waits for more, when so much usage is sure to come.
    pub(super) fn waits(&self, usage_to_come: usize, now: Instant) -> bool {
        usage_to_come >= MUCH_USAGE
            && now.duration_since(self.usage.1) < USAGE_WAIT
            && now.duration_since(self.opened) < BATCH_WAIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment after another.
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_batch_waits_only_for_much_usage() {
        let begun = Instant::now();
        let mut filling = Filling::new(5, begun);
        filling.begin(begun);
        filling.note(6, begun);
        assert!(filling.waits(MUCH_USAGE, begun + MOMENT));
        assert!(!filling.waits(MUCH_USAGE - 1, begun + MOMENT));
    }

    #[test]
    fn a_batch_does_not_wait_for_usage_that_does_not_come() {
        let begun = Instant::now();
        let mut filling = Filling::new(5, begun);
        filling.note(6, begun);
        filling.note(6, begun + USAGE_WAIT);
        assert!(filling.waits(1_000, begun + USAGE_WAIT - MOMENT));
        assert!(!filling.waits(1_000, begun + USAGE_WAIT));
        let later = begun + 2 * USAGE_WAIT;
        filling.begin(later);
        assert!(!filling.waits(1_000, later), "one that begins with facts changes nothing");
        filling.note(7, later);
        assert!(filling.waits(1_000, later));
    }

    #[test]
    fn a_batch_that_fills_slowly_is_handed_over() {
        let begun = Instant::now();
        let mut filling = Filling::new(0, begun);
        filling.begin(begun);
        let mut now = begun;
        for usage in 1..1_000 {
            filling.note(usage, now);
            if !filling.waits(1_000_000, now) {
                break;
            }
            now += USAGE_WAIT / 2;
        }
        assert_eq!(now - begun, BATCH_WAIT);
        filling.begin(now);
        assert!(filling.waits(1_000_000, now), "the next one waits anew");
    }
}
