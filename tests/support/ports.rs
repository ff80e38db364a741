//! Ports for the servers of a test, who listen on them later, and again after a restart.
//!
//! A port that the kernel hands out for "any" may be some client's own in between, so these lie below those.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that clients get, on Linux from 32,768 on.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Each is given once by a process, and processes begin at different ones.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let begin = std::process::id().wrapping_mul(7_919);
    loop {
        let at = begin.wrapping_add(u32::from(GIVEN.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(at).expect("less than the count");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
