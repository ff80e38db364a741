//! What a client may take of a server, so that none can hold it.

use std::time::Duration;

/// Limits of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a URL.
    pub url_bytes: usize,
    /// The most bytes of the head of a request: the URL and the headers.
    pub head_bytes: usize,
    /// To send the head of a request, and from one request to the next.
    pub head_time: Duration,
    /// To take in what was written for it: so long is waited for each 256 KiB.
    pub write_time: Duration,
    /// For an answer, all in all.
    pub answer_time: Duration,
    /// A connection lives no longer; an answer under way then may end.
    pub connection_time: Duration,
    /// How many connections there are at a time. Those beyond wait to be accepted.
    pub connections: usize,
    /// How many requests are being answered at a time. Those beyond are refused.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            url_bytes: 32 * 1024,
            head_bytes: 64 * 1024,
            head_time: Duration::from_secs(15),
            write_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(30),
            connection_time: Duration::from_secs(600),
            connections: 1_000,
            answers: 100,
        }
    }
}
