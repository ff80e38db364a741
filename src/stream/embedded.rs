//! The demo's broker: librdkafka's mock cluster, in this process and in memory.
//!
//! It takes the same clients as a real one, with these differences. It keeps the last 5 MiB, or 100,000 batches, of
//! each partition and silently drops what came before. A new group waits three seconds. Transactions commit, but no
//! earlier producer is fenced, and what was taken back is seen by read_committed readers all the same: the one relay of
//! the demo needs neither. Topics cannot be made through it.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rdkafka::mocking::MockCluster;

use super::StreamError;

/// A running broker; it ends when this is dropped.
pub struct EmbeddedBroker {
    address: String,
    end: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl EmbeddedBroker {
    /// Starts one on a free port of this machine, with these topics and their numbers of partitions.
    pub fn start(topics: &[(&str, i32)]) -> Result<EmbeddedBroker, StreamError> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        let (started, start) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        // The cluster stays with the thread that made it.
        let thread = thread::Builder::new()
            .name("embedded-broker".into())
            .spawn(move || match cluster(&topics) {
                Ok(cluster) => {
                    // Neither end failing means anything: the one that started this is gone then.
                    let _ = started.send(Ok(cluster.bootstrap_servers()));
                    let _ = ended.recv();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .map_err(|error| StreamError::Failed(format!("starting the embedded broker: {error}")))?;
        let address = start.recv().expect("the thread sends before it ends")?;
        Ok(EmbeddedBroker { address, end: Some((end, thread)) })
    }

    /// Its `bootstrap.servers`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.end.take() {
            drop(end);
            if thread.join().is_err() {
                tracing::warn!("the embedded broker ended with a panic");
            }
        }
    }
}

fn cluster(
    topics: &[(String, i32)],
) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, StreamError> {
    let failed = |error| StreamError::Failed(format!("starting the embedded broker: {error}"));
    let cluster = MockCluster::new(1).map_err(failed)?;
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).map_err(failed)?;
    }
    Ok(cluster)
}
