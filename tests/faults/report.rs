//! What came of the parts, kept in a file so that a long run can go on after a break: what was checked and found, and how
//! long it took to move again, by kind of fault: from its end; from the beginning where something was stopped, as others
//! take over then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::Figures;
use crate::scene::Recovery;

/// What came of a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    faults: usize,
    recoveries: Vec<(String, Recovery)>,
    figures: Figures,
    /// What was not as it must be.
    found: Vec<String>,
    /// Processes that ended by themselves.
    ended: Vec<String>,
}

/// All parts.
pub(crate) struct State {
    /// What the parts are of; others in the file are left alone.
    run: String,
    file: Option<PathBuf>,
    parts: BTreeMap<u32, Part>,
}

impl Part {
    /// One of so many faults.
    pub(crate) fn new(faults: usize) -> Part {
        Part { faults, recoveries: Vec::new(), figures: Figures::default(), found: Vec::new(), ended: Vec::new() }
    }

    /// Notes a recovery.
    pub(crate) fn add(&mut self, kind: String, recovery: Recovery) {
        self.recoveries.push((kind, recovery));
    }

    /// Notes what was found.
    pub(crate) fn checked(&mut self, (figures, found): (Figures, Vec<String>), ended: Vec<String>) {
        (self.figures, self.found, self.ended) = (figures, found, ended);
        self.found.iter().for_each(|line| println!("FOUND {line}"));
    }

    /// Whether nothing was found.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// In one line.
    pub(crate) fn sum(&self) -> String {
        format!("{:?}, {} things found", self.figures, self.found.len())
    }
}

impl State {
    /// What `STATE` has of this run.
    pub(crate) fn open(run: String) -> State {
        let file = std::env::var("STATE").ok().filter(|file| !file.is_empty()).map(PathBuf::from);
        let mut parts = BTreeMap::new();
        let lines = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        for line in lines.lines() {
            let (of, number, part): (String, u32, Part) = serde_json::from_str(line).expect("STATE is a file of ours");
            if of == run {
                parts.insert(number, part);
            }
        }
        State { run, file, parts }
    }

    /// Whether a part is done.
    pub(crate) fn has(&self, number: u32, faults: usize) -> bool {
        self.parts.get(&number).is_some_and(|part| part.faults == faults)
    }

    /// Keeps a part.
    pub(crate) fn add(&mut self, number: u32, part: Part) {
        if let Some(file) = &self.file {
            let line = serde_json::to_string(&(&self.run, number, &part)).unwrap();
            let mut file = File::options().create(true).append(true).open(file).unwrap();
            writeln!(file, "{line}").unwrap();
        }
        self.parts.insert(number, part);
    }

    /// Prints what came of all, and gives how many things were found.
    pub(crate) fn report(&self) -> usize {
        let mut kinds: BTreeMap<&str, Vec<Recovery>> = BTreeMap::new();
        for (kind, recovery) in self.parts.values().flat_map(|part| &part.recoveries) {
            kinds.entry(kind).or_default().push(*recovery);
        }
        println!("{:<34} {:>5}  {:>16}  {:>16}", "until it moved again, s", "times", "balances", "alerts");
        println!("{:<34} {:>5}  {:>9} {:>6}  {:>9} {:>6}", "", "", "median", "worst", "median", "worst");
        for (kind, recoveries) in kinds {
            let (balances, alerts) = (
                middle_and_worst(recoveries.iter().map(|recovery| recovery.balances)),
                middle_and_worst(recoveries.iter().map(|recovery| recovery.alerts)),
            );
            println!(
                "{kind:<34} {:>5}  {:>9.1} {:>6.1}  {:>9.1} {:>6.1}",
                recoveries.len(),
                balances.0,
                balances.1,
                alerts.0,
                alerts.1
            );
        }
        let mut sums = Figures::default();
        self.parts.values().for_each(|part| sums.add(&part.figures));
        let (mut faults, mut ended, mut found) = (0, 0, 0);
        for part in self.parts.values() {
            faults += part.faults;
            ended += part.ended.len();
            found += part.found.len();
            part.found.iter().for_each(|line| println!("FOUND {line}"));
        }
        println!("{faults} faults, {ended} processes ended by themselves and were started again; {sums:?}");
        println!("{found} things are lost, doubled or otherwise not as they must be");
        found
    }
}

fn middle_and_worst(times: impl Iterator<Item = f32>) -> (f32, f32) {
    let mut times: Vec<f32> = times.collect();
    times.sort_unstable_by(f32::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}
