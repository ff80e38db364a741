//! One term of the active relay: find out what is published, then publish what is not, in order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use rdkafka::message::BorrowedMessage;
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::{LEASE, Options, PART};
use crate::failpoint;
use crate::store::{AlertRow, AlertsOffset, OutboxPart, Partitioned, Published, StoreError};
use crate::stream::StreamError;
use crate::stream::alerts::read_from;
use crate::stream::producer::{Alert, AlertsProducer, PublishError};
use crate::stream::record::header;
use crate::telemetry::metrics as names;

/// The headers that tell a relay which alert a record of the topic is.
const STORE: &str = "headroom-store";
const PARTITION: &str = "headroom-partition";
const NUMBER: &str = "headroom-number";
/// How often the outbox is looked at when no worker of this process tells.
const LOOK: Duration = Duration::from_millis(50);
/// About how many bytes of alerts one transaction of Kafka holds at most, unless one alert alone is larger.
const BATCH_BYTES: usize = 8 << 20;
/// How long what waits may still take to be published once it is told to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a term ends.
pub(super) enum TermEnd {
    /// It was told to.
    Stopped,
    /// The store did not renew the lease in time. Whether it is away, those tell who ask it.
    Late,
    /// Something failed; a new term may do better.
    Failed(String),
    /// The topic holds alerts that the store has yet to raise.
    Ahead(String),
    /// Going on would publish alerts twice, skip some, or not keep to their order.
    Harmful(String),
}

impl From<StoreError> for TermEnd {
    fn from(error: StoreError) -> TermEnd {
        TermEnd::Failed(error.to_string())
    }
}

impl From<StreamError> for TermEnd {
    fn from(error: StreamError) -> TermEnd {
        TermEnd::Failed(error.to_string())
    }
}

impl From<PublishError> for TermEnd {
    fn from(error: PublishError) -> TermEnd {
        TermEnd::Failed(error.to_string())
    }
}

/// A term.
pub(super) struct Term<'a> {
    options: &'a Arc<Options>,
    /// Taken only while it publishes, on a thread of its own.
    producer: Option<AlertsProducer>,
    /// For each input partition the number of the last alert on the topic.
    published: BTreeMap<i32, i64>,
    /// What the store knows of the topic: for each of its partitions the next offset.
    noted: BTreeMap<i32, i64>,
}

impl Term<'_> {
    /// Serves until told to stop, or something fails. The lease is kept up all the time: beginning may take longer than it
    /// holds, and relays that take it from each other then would fence each other for ever.
    pub(super) async fn serve(options: &Arc<Options>, holder: Uuid, stop: &mut watch::Receiver<bool>) -> TermEnd {
        tokio::select! {
            end = keep_lease(options, holder) => end,
            end = Term::work(options, stop) => end,
        }
    }

    async fn work(options: &Arc<Options>, stop: &mut watch::Receiver<bool>) -> TermEnd {
        // Whoever is told to stop while it begins has nothing in hand, and a broker in trouble may keep it waiting for long.
        let begun = tokio::select! {
            begun = begin(options) => begun,
            _ = stop.wait_for(|stop| *stop) => return TermEnd::Stopped,
        };
        let mut term = match begun {
            Ok(term) => term,
            Err(end) => return end,
        };
        options.health.ok(PART);
        let mut told = stop.clone();
        let patience = async move {
            // A sender that is gone means the same.
            let _ = told.wait_for(|stop| *stop).await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::pin!(patience);
        loop {
            let published = tokio::select! {
                published = term.publish() => published,
                // What waits is published by whoever comes next; whether what is on its way was, the topic tells.
                () = &mut patience => return TermEnd::Stopped,
            };
            match published {
                Ok(0) => {
                    if *stop.borrow() {
                        return TermEnd::Stopped;
                    }
                    tokio::select! {
                        () = options.raised.notified() => {}
                        () = tokio::time::sleep(LOOK) => {}
                        _ = stop.changed() => {}
                    }
                }
                Ok(_) => {}
                Err(end) => return end,
            }
        }
    }

    /// Publishes some of what waits. Returns how many alerts that were.
    async fn publish(&mut self) -> Result<usize, TermEnd> {
        let store = &self.options.store;
        let mut waiting = 0;
        let mut parts: Vec<OutboxPart> = Vec::new();
        let mut room = self.options.batch;
        for last in store.outbox_numbers().await? {
            let published = self.published.get(&last.partition).copied().unwrap_or(0);
            if last.value < published {
                return Err(TermEnd::Failed(format!(
                    "alert {published} of partition {} is published, but the store's last is {}",
                    last.partition, last.value
                )));
            }
            waiting += last.value - published;
            let rows = room.min(usize::try_from(last.value - published).unwrap_or(usize::MAX));
            if rows > 0 {
                parts.push(OutboxPart { partition: last.partition, after: published, rows });
                room -= rows;
            }
        }
        gauge!(names::OUTBOX).set(waiting as f64);
        if parts.is_empty() {
            return Ok(0);
        }
        let batch = store.outbox(&parts, BATCH_BYTES).await?;
        if let Some((partition, number)) = missing(&parts, &batch) {
            return Err(self.gap(partition, number).await?);
        }
        let count = batch.len();
        let outgoing: Vec<Alert> = batch.iter().map(|row| self.outgoing(row.partition, &row.value)).collect();
        let Some(mut producer) = self.producer.take() else {
            return Err(TermEnd::Failed("the producer is gone".to_owned()));
        };
        let publishing = tokio::task::spawn_blocking(move || {
            let offsets = producer.publish(&outgoing);
            (producer, offsets)
        });
        let (producer, offsets) =
            publishing.await.map_err(|panic| TermEnd::Failed(format!("publishing failed: {panic}")))?;
        self.producer = Some(producer);
        let offsets = offsets?;
        for row in &batch {
            self.published.insert(row.partition, row.value.number);
            counter!(names::ALERTS_PUBLISHED, "type" => turn(&row.value.body)).increment(1);
        }
        gauge!(names::OUTBOX).set((waiting - i64::try_from(count).unwrap_or(0)) as f64);
        let mut moved: Vec<i32> = batch.iter().map(|row| row.partition).collect();
        moved.dedup();
        let numbers = moved.into_iter().map(|partition| Partitioned { partition, value: self.published[&partition] });
        note(self.options, numbers.collect(), offsets, &mut self.noted).await?;
        Ok(count)
    }

    /// What it means that an alert is not in the outbox.
    async fn gap(&self, partition: i32, number: i64) -> Result<TermEnd, TermEnd> {
        let known = self.options.store.relay_state().await?.numbers;
        if known.iter().any(|known| known.partition == partition && known.value >= number) {
            return Ok(TermEnd::Failed("another relay took over".to_owned()));
        }
        Ok(TermEnd::Harmful(format!(
            "relay: alert {number} of partition {partition} is neither published nor in the store's outbox: the store lost \
             rows; restore a whole copy of it"
        )))
    }

    fn outgoing(&self, partition: i32, row: &AlertRow) -> Alert {
        let options = self.options;
        Alert {
            partition: options.partitioner.partition_of(row.customer, options.alerts_partitions),
            key: row.customer.to_string(),
            payload: row.body.clone(),
            headers: vec![
                (STORE, options.store_id.to_string()),
                (PARTITION, partition.to_string()),
                (NUMBER, row.number.to_string()),
            ],
        }
    }
}

/// The first alert that ought to be among these and is not: they go on in each part without a gap, and end where the batch
/// is full.
fn missing(parts: &[OutboxPart], batch: &[Partitioned<AlertRow>]) -> Option<(i32, i64)> {
    let is_full = batch.iter().map(|row| row.value.body.len()).sum::<usize>() >= BATCH_BYTES;
    let mut found = batch.iter().peekable();
    for part in parts {
        let rows = i64::try_from(part.rows).unwrap_or(i64::MAX);
        for number in part.after + 1..=part.after + rows {
            match found.next_if(|row| row.partition == part.partition && row.value.number == number) {
                Some(_) => {}
                None if is_full && found.peek().is_none() => return None,
                None => return Some((part.partition, number)),
            }
        }
    }
    None
}

/// Keeps the lease up until that fails, or would come too late.
async fn keep_lease(options: &Options, holder: Uuid) -> TermEnd {
    let third = Duration::from_secs(u64::from(LEASE)) / 3;
    loop {
        tokio::time::sleep(third).await;
        match tokio::time::timeout(third * 2, options.store.lease(holder, LEASE)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return TermEnd::Failed("another relay holds the lease".to_owned()),
            Ok(Err(error)) => return error.into(),
            Err(_) => return TermEnd::Late,
        }
    }
}

/// Fences earlier relays, and finds out what is on the topic.
async fn begin(options: &Arc<Options>) -> Result<Term<'_>, TermEnd> {
    let state = options.store.relay_state().await?;
    let mut published: BTreeMap<i32, i64> = state.numbers.iter().map(|known| (known.partition, known.value)).collect();
    let mut noted: BTreeMap<i32, i64> = state.offsets.iter().map(|known| (known.partition, known.next)).collect();
    let from: Vec<(i32, i64)> =
        (0..options.alerts_partitions).map(|p| (p, noted.get(&p).copied().unwrap_or(0))).collect();
    let setup = options.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let producer = AlertsProducer::new(&setup.stream, &setup.stream.relay_id())?;
        failpoint::hit("relay-begun");
        let mut found: BTreeMap<i32, i64> = BTreeMap::new();
        let store_id = setup.store_id.to_string();
        let ends = read_from(&setup.stream, &from, |message| {
            if let Some((partition, number)) = identify(message, &store_id) {
                let highest = found.entry(partition).or_insert(0);
                *highest = number.max(*highest);
            }
        })?;
        Ok::<_, StreamError>((producer, found, ends))
    });
    let (producer, found, ends) =
        reading.await.map_err(|panic| TermEnd::Failed(format!("reading the alerts topic failed: {panic}")))??;
    if ends.len() != usize::try_from(options.alerts_partitions).unwrap_or(0) {
        return Err(TermEnd::Harmful(format!(
            "relay: topic {} has {} partitions now and had {} when this process started: started again it goes by those",
            options.stream.alerts_topic,
            ends.len(),
            options.alerts_partitions
        )));
    }
    for (partition, number) in found {
        let highest = published.entry(partition).or_insert(0);
        *highest = number.max(*highest);
    }
    for last in options.store.outbox_numbers().await? {
        let on_topic = published.get(&last.partition).copied().unwrap_or(0);
        if on_topic > last.value {
            return Err(TermEnd::Ahead(format!(
                "relay: {} holds alert {on_topic} of partition {}, but the store's last is {}: the store is older than \
                 the topic; restore a later copy of it",
                options.stream.alerts_topic, last.partition, last.value
            )));
        }
    }
    let numbers = published.iter().map(|(partition, value)| Partitioned { partition: *partition, value: *value });
    failpoint::hit("relay-topic-read");
    note(options, numbers.collect(), ends, &mut noted).await?;
    Ok(Term { options, producer: Some(producer), published, noted })
}

/// Tells the store what is on the topic: these numbers, and nothing else before these offsets that `noted` does not cover. A
/// store that knows otherwise may have lost numbers of alerts that stand there, which nobody would look for again.
async fn note(
    options: &Options,
    numbers: Vec<Partitioned<i64>>,
    offsets: impl IntoIterator<Item = (i32, i64)>,
    noted: &mut BTreeMap<i32, i64>,
) -> Result<(), TermEnd> {
    let offsets: Vec<AlertsOffset> =
        offsets.into_iter().map(|(partition, next)| AlertsOffset { partition, next }).collect();
    let known =
        |of: &AlertsOffset| noted.get(&of.partition).map(|next| AlertsOffset { partition: of.partition, next: *next });
    let before = offsets.iter().filter_map(known).collect();
    let published = Published { numbers, offsets, before };
    if !options.store.published(&published).await? {
        let line = "the store knows otherwise what is on the alerts topic: another relay took over, or it went back";
        return Err(TermEnd::Failed(line.to_owned()));
    }
    noted.extend(published.offsets.iter().map(|of| (of.partition, of.next)));
    Ok(())
}

/// The input partition and number of an alert on the topic, if it is of this store.
fn identify(message: &BorrowedMessage<'_>, store_id: &str) -> Option<(i32, i64)> {
    if header(message, STORE)? != store_id {
        return None;
    }
    Some((header(message, PARTITION)?.parse().ok()?, header(message, NUMBER)?.parse().ok()?))
}

/// Which way the alert's threshold turned, as its own type says.
fn turn(body: &str) -> &'static str {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
    }
    match serde_json::from_str::<Event<'_>>(body) {
        Ok(event) if event.r#type.ends_with("recovered") => "recovered",
        _ => "crossed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: &[(i32, i64)], body: &str) -> Vec<Partitioned<AlertRow>> {
        let row = |(partition, number): &(i32, i64)| {
            let value = AlertRow { number: *number, customer: 1, body: body.to_owned() };
            Partitioned { partition: *partition, value }
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn an_alert_that_the_outbox_lacks_is_missed_and_one_for_which_there_is_no_room_is_not() {
        let part = |partition, after, rows| OutboxPart { partition, after, rows };
        let parts = [part(0, 4, 2), part(3, 0, 1)];
        assert_eq!(missing(&parts, &batch(&[(0, 5), (0, 6), (3, 1)], "{}")), None);
        assert_eq!(missing(&parts, &batch(&[(0, 5), (0, 7), (3, 1)], "{}")), Some((0, 6)));
        assert_eq!(missing(&parts, &batch(&[(0, 6), (3, 1)], "{}")), Some((0, 5)));
        assert_eq!(missing(&parts, &batch(&[(0, 5), (0, 6)], "{}")), Some((3, 1)));
        assert_eq!(missing(&parts, &batch(&[(3, 1)], "{}")), Some((0, 5)));
        assert_eq!(missing(&parts, &batch(&[], "{}")), Some((0, 5)));
        let large = " ".repeat(BATCH_BYTES);
        assert_eq!(missing(&parts, &batch(&[(0, 5)], &large)), None);
        assert_eq!(missing(&parts, &batch(&[(0, 6)], &large)), Some((0, 5)));
    }
}
