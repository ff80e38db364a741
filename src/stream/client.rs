//! What all clients share: librdkafka's log lines to `tracing`, its last complaint, and its errors as sentences.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::StreamError;

/// The context of a client: where its log lines and errors go.
#[derive(Default)]
pub(super) struct Complaints {
    last: Mutex<Option<Complaint>>,
}

#[derive(Clone)]
struct Complaint {
    line: String,
    /// The broker is there and takes us for a stranger, or we it: waiting does not help.
    refused: bool,
}

impl Complaints {
    /// What librdkafka complained of last: the cause behind an error that itself only says that time ran out.
    pub(super) fn last(&self) -> Option<String> {
        self.lock().as_ref().map(|complaint| complaint.line.clone())
    }

    /// Whether it was about who we are, or who the broker is.
    pub(super) fn refused(&self) -> bool {
        self.lock().as_ref().is_some_and(|complaint| complaint.refused)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Complaint>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A complaint without how long it took and how often it was suppressed.
fn without_details(reason: &str) -> &str {
    match reason.rfind(" (after ") {
        Some(at) if reason.ends_with(')') => &reason[..at],
        _ => reason,
    }
}

/// What to ask when a broker hangs up.
const LISTENER: &str = "; is kafka.properties: security.protocol the listener's?";

/// Whether it says that a broker hung up: it depends on who is first whether that shows when reading or when writing.
fn hangs_up(reason: &str) -> bool {
    reason.contains("Disconnected") || reason.contains("Send failed")
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // It warns of a consumer's property on a producer, and the other way round; the user's go to both.
        if facility == "CONFWARN" {
            tracing::debug!(target: "librdkafka", facility, "{line}");
            return;
        }
        // A broker that hangs up at once is told of in the log only.
        if facility == "FAIL" && hangs_up(line) && !self.refused() {
            let reason = line.split_once("]: ").map_or(line, |(_, reason)| reason);
            *self.lock() = Some(Complaint { line: format!("{}{LISTENER}", without_details(reason)), refused: false });
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // The end of a partition is news, not an error; and that all brokers are down says less than why each is.
            Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AllBrokersDown) => {}
            _ => {
                tracing::debug!(target: "librdkafka", "{reason}");
                let look = match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                        Some("sasl.username, sasl.password and sasl.mechanism")
                    }
                    Some(RDKafkaErrorCode::SSL) => Some("ssl.ca.location"),
                    _ => None,
                };
                let hint = match look {
                    Some(names) => format!("; look at kafka.properties: {names}"),
                    None if hangs_up(reason) => LISTENER.to_owned(),
                    None => String::new(),
                };
                let line = format!("{}{hint}", without_details(reason));
                *self.lock() = Some(Complaint { line, refused: look.is_some() });
            }
        }
    }
}

impl ConsumerContext for Complaints {}

/// A client that is no member of a group.
pub(super) type Reader = BaseConsumer<Complaints>;

/// Makes a client, or says which property is at fault.
pub(super) fn create<C, T>(config: &ClientConfig, context: C) -> Result<T, StreamError>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    config.create_with_context(context).map_err(|error| StreamError::Config(config_fault(&error)))
}

/// Serves a reader's log lines and errors, which wait until it is polled.
pub(super) fn serve(reader: &Reader) {
    // One poll serves one event.
    for _ in 0..100 {
        drop(reader.poll(Duration::ZERO));
    }
}

/// What is wrong with a config, without the value, which may be a secret.
pub(super) fn config_fault(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, fault, name, value) => {
            if !value.is_empty() && fault.contains(value.as_str()) {
                return format!("{name}: librdkafka does not take its value");
            }
            format!("{name}: {fault}")
        }
        KafkaError::ClientCreation(fault) => fault.clone(),
        other => other.to_string(),
    }
}

/// An error of a request to the brokers.
pub(super) fn request_fault(what: &str, error: &KafkaError, complaints: &Complaints, servers: &str) -> StreamError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::Authentication,
        ) => {
            let why = complaints.last().map_or_else(String::new, |why| format!(": {why}"));
            StreamError::Away(format!("{what}: no answer from {servers}{why}"))
        }
        Some(code) => StreamError::Failed(format!("{what}: {code}")),
        None => StreamError::Failed(format!("{what}: {error}")),
    }
}
