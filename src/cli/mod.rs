//! The commands (`domain.md section 9`), one file each: what they take, and the calls that do the work.

mod audit;
mod config;
mod dead_letters;
mod demo;
mod explain;
mod failure;
mod migrate;
mod output;
mod progress;
mod rebuild;
mod run;
mod runtime;
mod settings;
mod token;
mod topics;
mod totals;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use failure::Failure;

/// Keeps inclusive usage balances: exact, within milliseconds, whatever the order of arrival and whatever dies.
#[derive(Debug, Parser)]
#[command(name = "headroom", version)]
pub(crate) struct Cli {
    /// The config file; without it the one that HEADROOM_CONFIG names, if any
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: all roles, or those named
    Run(run::Args),
    /// Play a made-up month in about a minute; needs nothing but this program
    Demo(demo::Args),
    /// Bring the store's schema up to this program's
    Migrate(migrate::Args),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Look after the topics
    #[command(subcommand)]
    Topics(topics::Command),
    /// Look at records that were refused, and put them back
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Look where partitions go on, and let one go on whose position is gone
    #[command(subcommand)]
    Progress(progress::Command),
    /// Print a signed token for trying the query out
    Token(token::Args),
    /// Print the control totals as one JSON object
    Totals(totals::Args),
    /// Show how a customer's buckets came to what is left in them
    Explain(explain::Args),
    /// Hold every balance against its usage by a plain fold, and the control totals against the rows
    Audit(audit::Args),
    /// Fold balances anew from the ledger, and report or repair what differs
    Rebuild(rebuild::Args),
}

impl Cli {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let file = self.config;
        match self.command {
            Command::Run(args) => run::run(args, file),
            Command::Demo(args) => demo::run(args, file),
            Command::Migrate(args) => migrate::run(args, file),
            Command::Config(command) => config::run(command, file),
            Command::Topics(command) => topics::run(command, file),
            Command::DeadLetters(command) => dead_letters::run(command, file),
            Command::Progress(command) => progress::run(command, file),
            Command::Token(args) => token::run(args, file),
            Command::Totals(args) => totals::run(args, file),
            Command::Explain(args) => explain::run(args, file),
            Command::Audit(args) => audit::run(args, file),
            Command::Rebuild(args) => rebuild::run(args, file),
        }
    }
}
