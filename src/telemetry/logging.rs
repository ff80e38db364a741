//! The log: lines on standard error, for a person or as JSON, in UTC.
//!
//! Standard output belongs to what a command answers. What may be logged is for those to know who log: secrets have a
//! type that shows nothing.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat, LogLevel};

/// The variable that says more finely than `log.level` what is written, and wins over it.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG = \"{0}\" (environment variable): wants levels, such as \"info,headroom=debug\"")]
    Filter(String),
    /// There is one already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets the process's log up, on standard error.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let directives = std::env::var(FILTER_VARIABLE).ok();
    let subscriber = subscriber(log, directives.as_deref(), io::stderr)?;
    tracing_subscriber::util::SubscriberInitExt::try_init(subscriber).map_err(|_| LoggingError::Twice)
}

/// What writes the lines. Timestamps are RFC 3339 in UTC.
fn subscriber<W>(
    log: &Log,
    directives: Option<&str>,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match log.level {
        // PostgreSQL's notices are of its own tables' upkeep.
        LogLevel::Info => "info,sqlx::postgres::notice=warn",
        other => other.name(),
    };
    let directives = directives.filter(|text| !text.is_empty()).unwrap_or(level);
    let filter = EnvFilter::builder().parse(directives).map_err(|_| LoggingError::Filter(directives.to_owned()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match log.format {
        LogFormat::Text => Box::new(lines.finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::LogLevel;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while writing").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(log: &Log, directives: Option<&str>) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(log, directives, move || writer.clone()).expect("good directives");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(partition = 3, "taken");
            tracing::debug!("detail");
        });
        let bytes = written.0.lock().expect("no test panics while writing").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn text_is_one_line_in_utc() {
        let lines = written(&Log::default(), None);
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let (time, rest) = lines.split_once(' ').expect("a time");
        assert!(crate::domain::Instant::parse(time).is_some() && time.ends_with('Z'), "{time}");
        assert!(rest.contains("INFO") && rest.trim_end().ends_with("taken partition=3"), "{rest}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = written(&Log { format: LogFormat::Json, level: LogLevel::Info }, None);
        let line: serde_json::Value = serde_json::from_str(&lines).expect("one JSON object");
        assert_eq!(
            (&line["message"], &line["partition"], &line["level"]),
            (&"taken".into(), &3.into(), &"INFO".into())
        );
    }

    #[test]
    fn the_level_and_rust_log_decide_what_is_written() {
        let debug = Log { format: LogFormat::Text, level: LogLevel::Debug };
        assert_eq!(written(&debug, None).lines().count(), 2);
        assert_eq!(written(&debug, Some("")).lines().count(), 2);
        assert_eq!(written(&debug, Some("error")).lines().count(), 0);
        let refused = subscriber(&debug, Some("headroom=loud"), io::sink).err().expect("refused").to_string();
        assert!(refused.starts_with("RUST_LOG = \"headroom=loud\"") && !refused.contains('\n'), "{refused}");
    }
}
