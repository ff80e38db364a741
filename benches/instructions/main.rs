//! Instructions per event on the way of a usage event, counted by callgrind: the same on every machine and under any load,
//! where seconds are not. Held against `benches/baseline.md`.
//!
//! `make bench` prints the table and fails when a row of the fast path grew by more than a tenth; `BLESS=1 make bench`
//! writes the baseline anew. It counts in the build that the tests have: an optimised one of all dependencies would cost
//! CI more than all else. `cases` is what is counted.

mod baseline;
mod cases;

use std::process::{Command, ExitCode};

use cases::Case;

/// Events in the shorter and the longer run of a case. What they differ by is what the events cost.
const EVENTS: (usize, usize) = (2_000, 6_000);
/// By how much the fast path may grow, in percent.
const TOLERANCE: f64 = 10.0;
/// Names the case and the number of events to the process that valgrind looks at.
const CASE: &str = "HEADROOM_BENCH_CASE";

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(CASE) {
        let (name, events) = case.rsplit_once(' ').expect("a name and a number");
        let case = cases::ALL.iter().find(|case| case.name == name).expect("a case");
        (case.run)(EVENTS.1, events.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if !cfg!(debug_assertions) {
        eprintln!("bench: the baseline is of the tests' build, and this is an optimised one: run `make bench`");
        return ExitCode::FAILURE;
    }
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            let line = "the fast path takes more than a tenth more instructions than benches/baseline.md says: make it \
                        cheaper, or say why in the commit that changes the baseline (BLESS=1 make bench)";
            eprintln!("bench: {line}");
            ExitCode::FAILURE
        }
        Err(line) => {
            eprintln!("bench: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Counts every case and prints it beside the baseline. Whether the fast path is about as cheap as that says.
fn compare() -> Result<bool, String> {
    let known = baseline::read()?;
    let (mut rows, mut holds) = (Vec::new(), true);
    println!("| {:<8} | {:>8} | {:>8} | {:>8} |  |", "step", "baseline", "now", "change");
    println!("|---|---:|---:|---:|---|");
    for case in cases::ALL {
        let now = per_event(case)?;
        let before = known.iter().find(|(name, _)| name == case.name).map(|(_, instructions)| *instructions);
        let change = before.map(|before| 100.0 * (f64::from(now) / f64::from(before) - 1.0));
        holds &= !case.fast_path || change.is_some_and(|change| change <= TOLERANCE);
        let before = before.map_or("none".to_owned(), |before| before.to_string());
        let change = change.map_or(String::new(), |change| format!("{change:+.1} %"));
        println!("| {:<8} | {before:>8} | {now:>8} | {change:>8} | {} |", case.name, case.what);
        rows.push((case, now));
    }
    if std::env::var("BLESS").is_ok_and(|bless| bless == "1") {
        baseline::write(&rows)?;
        return Ok(true);
    }
    Ok(holds)
}

/// Instructions for one event of a case.
fn per_event(case: &Case) -> Result<u32, String> {
    let (few, many) = (counted(case, EVENTS.0)?, counted(case, EVENTS.1)?);
    let events = u64::try_from(EVENTS.1 - EVENTS.0).expect("a small number");
    u32::try_from((many.saturating_sub(few) + events / 2) / events).map_err(|_| format!("{}: {many}", case.name))
}

/// Instructions of this program over so many events of a case.
fn counted(case: &Case, events: usize) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .env(CASE, format!("{} {events}", case.name))
        .output()
        .map_err(|error| format!("valgrind: {error}; install it (apt-get install valgrind)"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: it failed\n{told}", case.name));
    }
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    collected.and_then(|count| count.parse().ok()).ok_or_else(|| format!("{}: callgrind said\n{told}", case.name))
}
