//! What the consumer thread feeds: the worker, as the stream knows it.

use rdkafka::message::BorrowedMessage;

use super::{Gap, Input};

/// Where to go on with a partition pair: the next offset of each topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The partition pair.
    pub partition: i32,
    /// The next offset of usage events.
    pub usage: i64,
    /// The next offset of assignment events.
    pub assignments: i64,
}

/// What a record was to its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The first of it: others then have the next chance to begin one, since there may be more partitions than batches at
    /// a time.
    pub begins: bool,
    /// The last: there is no room for another.
    pub fills: bool,
}

/// What the consumer thread feeds. All calls come from that thread.
pub trait Sink: Send + 'static {
    /// The group gave these partition pairs (none, when it has more members than partitions): takes them from the store
    /// and says where to go on with each. Blocks, for less than `max.poll.interval.ms`. With an error nothing is
    /// consumed; the group is left and joined again after a pause.
    fn assigned(&mut self, partitions: &[i32]) -> Result<Vec<Start>, String>;

    /// They are taken away, all that [`Sink::assigned`] was called with, even if it failed: finishes what is in hand.
    /// Blocks, bounded as above.
    fn revoked(&mut self, partitions: &[i32]);

    /// How many records it takes now of a partition's input. After a none, [`Control::wake`](super::Control::wake) says that there is room.
    fn room(&self, partition: i32, input: Input) -> usize;

    /// A record, next in its partition's order.
    fn record(&mut self, input: Input, message: &BorrowedMessage<'_>) -> Taken;

    /// Everything before `offset` was given, and a read_committed reader is at the end there. May come again with a
    /// higher offset and no record between, when only transactions' markers are.
    fn at_end(&mut self, partition: i32, input: Input, offset: i64);

    /// The topic does not hold the position to go on from. From now on there must be no room for the partition pair.
    fn gap(&mut self, gap: Gap);

    /// Records of the input that come next are damaged, and why, in one line; none comes until they are whole again or
    /// gone, which `None` tells. The partition's other input goes on.
    fn unreadable(&mut self, partition: i32, input: Input, why: Option<String>);

    /// Every queue was looked into once: hands batches over.
    fn round(&mut self);

    /// The next offsets of partition pairs whose commits landed in the store since it was last asked. Kafka is told for
    /// lag displays only.
    fn committed(&mut self) -> Vec<Start>;
}
