//! Whether the brokers answer, for health: with a client of its own, since the others wait for them in silence for long.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::client::{self, Complaints, Reader};
use super::{Options, StreamError};

/// How long an answer may take.
const ASK: Duration = Duration::from_secs(3);

/// Asks the brokers.
pub struct Probe {
    options: Options,
    reader: Reader,
}

impl Probe {
    /// Makes the client; asks nothing yet.
    pub fn new(options: &Options) -> Result<Probe, StreamError> {
        let reader = client::create(&options.reader()?, Complaints::default())?;
        Ok(Probe { options: options.clone(), reader })
    }

    /// Whether any broker answers now. Blocks for up to three seconds.
    pub fn ask(&self) -> Result<(), StreamError> {
        let answer = self.reader.fetch_metadata(Some(&self.options.usage_topic), ASK);
        client::serve(&self.reader);
        answer.map(drop).map_err(|error| {
            client::request_fault("asking the brokers", &error, self.reader.context(), &self.options.bootstrap_servers)
        })
    }
}
