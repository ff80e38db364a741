//! What a command answers, on standard output.

use std::io::Write as _;

use anyhow::Context as _;

/// Prints a line or several. That nobody reads them is an error, not a panic.
pub(super) fn print(text: &str) -> Result<(), anyhow::Error> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).context("standard output")
}

/// A text as it is, but nothing that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}
