//! `headroom dead-letters`: records that were refused, to be looked at and put back (`domain.md sections 3 and 9`).

mod filter;
mod put_back;
mod show;

use std::path::PathBuf;

use super::Failure;

/// What can be done with them.
#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// List those that fit, a page at a time
    List(show::ListArgs),
    /// Show one whole: headers, key and value
    Show(show::ShowArgs),
    /// Send those that fit to their topic again, once their cause is mended; without --yes only say how many
    PutBack(put_back::Args),
}

/// Runs the command.
pub(in crate::cli) fn run(command: Command, file: Option<PathBuf>) -> Result<(), Failure> {
    match command {
        Command::List(args) => show::list(args, file),
        Command::Show(args) => show::show(args, file),
        Command::PutBack(args) => put_back::run(args, file),
    }
}
