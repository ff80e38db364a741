//! In which order queues are looked into. There may be more of them than batches at a time, so whoever began a batch is
//! behind all others that wait for a place: no partition waits longer than each other one takes for a batch.

/// Whose turn is next.
#[derive(Debug, Default)]
pub(super) struct Turns {
    first: usize,
}

impl Turns {
    /// The places of so many queues, in the order in which they are to be looked into.
    pub(super) fn order(&self, queues: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first;
        (0..queues).map(move |turn| (first + turn) % queues)
    }

    /// Notes that the queue at this place began a batch.
    pub(super) fn began(&mut self, at: usize) {
        self.first = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues that all have records at all times, and fewer places for batches than queues. Batches end in any order.
    #[test]
    fn no_queue_begins_twice_while_another_waits() {
        let (queues, places) = (8, 3);
        let mut turns = Turns::default();
        let (mut open, mut begun) = (Vec::new(), Vec::new());
        for look in 0..400_usize {
            let mut last = None;
            for at in turns.order(queues).collect::<Vec<_>>() {
                if open.len() < places && !open.contains(&at) {
                    open.push(at);
                    begun.push(at);
                    last = Some(at);
                }
            }
            last.into_iter().for_each(|at| turns.began(at));
            // None of them ends in some rounds, and several in others.
            for ended in 0..(look * 7 % 3) {
                open.remove((look + ended) % open.len());
            }
        }
        assert!(begun.len() > 300);
        for window in begun.windows(queues + places) {
            let missing = (0..queues).find(|queue| !window.contains(queue));
            assert_eq!(missing, None, "{window:?}");
        }
    }
}
