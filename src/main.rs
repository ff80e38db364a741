//! The command line: reads it, runs the command, and tells how it ended by the exit code: 0 done, 1 failed, 2 wrong use or
//! config. What went wrong is one line on standard error.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("headroom: {failure}");
            failure.exit_code()
        }
    }
}
