//! The processes of a deployment, and who watches over them: what ends by itself is started again, as any supervisor does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process that ended by itself is down.
const AGAIN: Duration = Duration::from_millis(500);

/// A process, by its place in the fleet.
pub(crate) type Seat = usize;

/// Runs in a seat, time and again.
struct Process {
    name: String,
    roles: &'static str,
    child: Option<Child>,
    /// When it is started again.
    due: Option<Instant>,
}

/// All of them.
pub(crate) struct Fleet {
    folder: PathBuf,
    environment: BTreeMap<String, String>,
    processes: Vec<Process>,
    /// How often one ended by itself, and what it said then.
    pub(crate) ended: Vec<String>,
}

impl Fleet {
    /// None yet.
    pub(crate) fn new(folder: &Path, environment: BTreeMap<String, String>) -> Fleet {
        Fleet { folder: folder.to_owned(), environment, processes: Vec::new(), ended: Vec::new() }
    }

    /// What the program is called with in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let built = || env!("CARGO_BIN_EXE_headroom").to_owned();
        let program = std::env::var("HEADROOM_TEST_PROGRAM").unwrap_or_else(|_| built());
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment);
        command
    }

    /// What a command prints, which must succeed.
    pub(crate) fn say(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "headroom {arguments:?}: {said}{why}");
        said.trim().to_owned()
    }

    /// Another process with these roles, which is started.
    pub(crate) fn add(&mut self, roles: &'static str) -> Seat {
        let seat = self.processes.len();
        let name = format!("{seat}-{}", roles.replace(',', "-"));
        self.processes.push(Process { name, roles, child: None, due: None });
        self.start(seat);
        seat
    }

    /// Its name.
    pub(crate) fn name(&self, seat: Seat) -> &str {
        &self.processes[seat].name
    }

    /// The seats whose processes have this role.
    pub(crate) fn with(&self, role: &str) -> Vec<Seat> {
        (0..self.processes.len()).filter(|seat| self.processes[*seat].roles.split(',').any(|own| own == role)).collect()
    }

    /// Starts one.
    pub(crate) fn start(&mut self, seat: Seat) {
        let (process, armed) = (&self.processes[seat], self.armed(seat));
        let log = self.folder.join(format!("{}.log", process.name));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(&["run", "--role", process.roles]);
        command.env("FAILPOINT", armed).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let process = &mut self.processes[seat];
        (process.child, process.due) = (Some(child), None);
    }

    /// Sends one a signal; nothing where it is down.
    pub(crate) fn signal(&self, seat: Seat, signal: &str) {
        if let Some(child) = &self.processes[seat].child {
            let sent = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
            assert!(sent.is_ok(), "kill is there");
        }
    }

    /// Kills one, which stays down.
    pub(crate) fn kill(&mut self, seat: Seat) {
        let process = &mut self.processes[seat];
        process.due = None;
        if let Some(mut child) = process.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Has one end in good order; it stays down. The code it ended with.
    pub(crate) fn end(&mut self, seat: Seat) -> Option<i32> {
        self.signal(seat, "-TERM");
        let process = &mut self.processes[seat];
        process.due = None;
        process.child.take().and_then(|mut child| child.wait().unwrap().code())
    }

    /// The file that arms a place in one (`src/failpoint.rs`).
    fn armed(&self, seat: Seat) -> PathBuf {
        self.folder.join(format!("{}.armed", self.processes[seat].name))
    }

    /// Arms a place in some of them.
    pub(crate) fn arm(&self, seats: &[Seat], action: &str, place: &str) {
        for seat in seats {
            // In one step, so that nobody reads half of it.
            let new = self.armed(*seat).with_extension("new");
            fs::write(&new, format!("{action} {place}")).unwrap();
            fs::rename(new, self.armed(*seat)).unwrap();
        }
    }

    /// The one of them that came by, if one did.
    pub(crate) fn came_by(&self, seats: &[Seat]) -> Option<Seat> {
        seats.iter().copied().find(|seat| !self.armed(*seat).exists())
    }

    /// Takes back what was armed. Those that came by all the same.
    pub(crate) fn disarm(&self, seats: &[Seat]) -> Vec<Seat> {
        seats.iter().copied().filter(|seat| fs::remove_file(self.armed(*seat)).is_err()).collect()
    }

    /// Starts again what ended by itself.
    pub(crate) fn tend(&mut self) {
        for seat in 0..self.processes.len() {
            let process = &mut self.processes[seat];
            if let Some(child) = &mut process.child
                && let Some(status) = child.try_wait().unwrap()
            {
                process.child = None;
                process.due = Some(Instant::now() + AGAIN);
                let line = format!("{} ended by itself ({status}): {}", self.name(seat), self.last_words(seat));
                println!("  {line}");
                self.ended.push(line);
            }
            if self.processes[seat].due.is_some_and(|due| Instant::now() >= due) {
                self.start(seat);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pause(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tend();
            std::thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Whether one runs.
    pub(crate) fn is_up(&self, seat: Seat) -> bool {
        self.processes[seat].child.is_some()
    }

    /// How often they have said this, all of them together.
    pub(crate) fn times_said(&self, words: &str) -> usize {
        let said = |process: &Process| {
            let log = fs::read(self.folder.join(format!("{}.log", process.name))).unwrap_or_default();
            String::from_utf8_lossy(&log).matches(words).count()
        };
        self.processes.iter().map(said).sum()
    }

    fn last_words(&self, seat: Seat) -> String {
        let log = fs::read(self.folder.join(format!("{}.log", self.processes[seat].name))).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if let Some(mut child) = process.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
