//! What a command answers, on standard output.

use std::io::Write as _;

use anyhow::Context as _;

/// Prints a line or several. That nobody reads them is an error, not a panic.
pub(super) fn print(text: &str) -> Result<(), anyhow::Error> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).context("standard output")
}
