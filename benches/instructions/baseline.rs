//! The instructions that each step took when someone last looked: `benches/baseline.md`, a table for people.

use std::fmt::Write as _;

use crate::cases::Case;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.md");

const HEAD: &str = "# Instructions per event\n\n\
    Counted by callgrind on x86-64, in the build that the tests have: several times an optimised one's, and to be compared\n\
    with each other only. `make bench` fails when a row grows by more than a tenth, `replay` excepted; whoever has a\n\
    reason writes the table anew with `BLESS=1 make bench`, in the same commit.\n\n\
    | step | instructions | |\n|---|---:|---|\n";

/// Names of steps and their instructions.
pub(crate) fn read() -> Result<Vec<(String, u32)>, String> {
    let text = std::fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(row).collect())
}

/// Writes the table anew.
pub(crate) fn write(rows: &[(&Case, u32)]) -> Result<(), String> {
    let mut text = HEAD.to_owned();
    for (case, instructions) in rows {
        writeln!(text, "| {} | {instructions} | {} |", case.name, case.what).expect("a String takes all");
    }
    std::fs::write(PATH, text).map_err(|error| format!("{PATH}: {error}"))
}
