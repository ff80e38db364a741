//! How a command can fail, and the exit code of each way.

use std::fmt;
use std::process::ExitCode;

use headroom::config::ConfigError;
use headroom::service::ServiceError;
use headroom::stream::StreamError;
use headroom::telemetry::logging::LoggingError;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked in the wrong way, or the config is wrong: exit code 2.
    Use(String),
    /// It tried and could not: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Use(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    /// Always one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Failure::Use(line) => line.clone(),
            Failure::Failed(error) => format!("{error:#}"),
        };
        f.write_str(&text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Use(error.to_string())
    }
}

impl From<LoggingError> for Failure {
    fn from(error: LoggingError) -> Failure {
        Failure::Use(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        let of_stream = matches!(error.downcast_ref(), Some(StreamError::Config(_)));
        if of_stream || error.downcast_ref().is_some_and(ServiceError::is_of_config) {
            return Failure::Use(error.to_string());
        }
        Failure::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error = Err::<(), _>(anyhow::anyhow!("refused\n  by the host")).context("store").expect_err("an error");
        assert_eq!(Failure::from(error).to_string(), "store: refused by the host");
    }
}
