//! A PostgreSQL of the run's own, which can be killed and comes back with what it had.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use tokio::runtime::Runtime;

use crate::ports::free_port;
use crate::wait::{patience, until};

/// The database; it dies with this.
pub(crate) struct Database {
    folder: PathBuf,
    /// The folder within it that has its data.
    data: &'static str,
    port: u16,
    child: Child,
    runtime: Runtime,
    connection: Option<PgConnection>,
}

/// PostgreSQL's programs: the newest that is installed.
fn program(name: &str) -> PathBuf {
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|program| program.exists())
        .collect();
    installed.sort();
    installed.pop().unwrap_or_else(|| PathBuf::from(name))
}

fn id(flag: &str, user: &str) -> u32 {
    let said = Command::new("id").args([flag, user]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().parse().expect("scripts/services install brings the user postgres")
}

/// As an unprivileged user, since PostgreSQL refuses to run as root.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    let me = String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap();
    if me.trim() == "0" {
        command.uid(id("-u", "postgres")).gid(id("-g", "postgres"));
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

impl Database {
    /// Starts an empty one, with all it has in this folder.
    pub(crate) fn start(folder: &Path) -> Database {
        let folder = folder.join("postgres");
        fs::create_dir(&folder).unwrap();
        own(&folder);
        let made = command("initdb")
            .args(["-U", "headroom", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(folder.join("db"))
            .stdout(File::create(folder.join("initdb.log")).unwrap())
            .status()
            .expect("PostgreSQL is installed: scripts/services install");
        assert!(made.success(), "initdb failed: see {}", folder.display());
        let database = Database::run(folder, free_port());
        let mut postgres = database.runtime.block_on(PgConnection::connect(&database.url_of("postgres"))).unwrap();
        database.runtime.block_on(sqlx::query("CREATE DATABASE headroom").execute(&mut postgres)).unwrap();
        database
    }

    fn run(folder: PathBuf, port: u16) -> Database {
        let child = spawn(&folder, "db", port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut database = Database { folder, data: "db", port, child, runtime, connection: None };
        database.await_up();
        database
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://headroom@127.0.0.1:{}/{database}", self.port)
    }

    /// Where the store is.
    pub(crate) fn url(&self) -> String {
        self.url_of("headroom")
    }

    /// Kills it: every process of it, none of which can put anything in order.
    pub(crate) fn kill(&mut self) {
        let children = children(self.child.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        kill(&children);
        self.connection = None;
    }

    /// Whether it runs: it ends by itself when it cannot write its log.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Starts it again after a kill; it answers then.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder, self.data, self.port);
        self.await_up();
    }

    /// Copies it while it runs, as it is now; with `replica`, as a standby that streams from it.
    pub(crate) fn copy(&self, name: &'static str, replica: bool) {
        let mut copying = command("pg_basebackup");
        copying.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "headroom"]);
        copying.args(["-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(self.folder.join(name));
        if replica {
            copying.arg("-R");
        }
        assert!(copying.status().unwrap().success(), "the copy is made");
    }

    /// Has a standby stream up to now, then ends it, so that it has nothing that comes later.
    pub(crate) fn stream_once(&mut self, replica: &'static str) {
        let now: String = self.rows("SELECT pg_current_wal_lsn()::text")[0].get(0);
        let port = free_port();
        let mut child = spawn(&self.folder, replica, port);
        let url = format!("postgres://headroom@127.0.0.1:{port}/headroom");
        let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'::pg_lsn");
        let runtime = &self.runtime;
        until("the standby is where the primary was", patience(), || {
            runtime.block_on(async {
                let mut standby = PgConnection::connect(&url).await.ok()?;
                let row = sqlx::query(&reached).fetch_one(&mut standby).await.ok()?;
                row.try_get::<bool, _>(0).ok()
            }) == Some(true)
        });
        let children = children(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        kill(&children);
    }

    /// After a kill: a copy takes its place, at the same address. A standby is promoted.
    pub(crate) fn replace(&mut self, copy: &'static str) {
        self.data = copy;
        self.restart();
        if self.rows("SELECT pg_is_in_recovery()")[0].get(0) {
            let data = self.folder.join(self.data);
            let promoted = command("pg_ctl").args(["promote", "-w", "-D"]).arg(data).stdout(Stdio::null()).status();
            assert!(promoted.unwrap().success(), "the standby is promoted");
        }
    }

    fn await_up(&mut self) {
        let url = self.url_of("postgres");
        until("PostgreSQL answers", patience(), || self.runtime.block_on(PgConnection::connect(&url)).is_ok());
    }

    /// The rows of a query; an error while the database is away.
    pub(crate) fn try_rows(&mut self, query: &str) -> Result<Vec<PgRow>, sqlx::Error> {
        let url = self.url();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.runtime.block_on(PgConnection::connect(&url))?,
        };
        let query = sqlx::query(query);
        let rows = self.runtime.block_on(query.fetch_all(&mut connection))?;
        self.connection = Some(connection);
        Ok(rows)
    }

    /// The rows of a query.
    pub(crate) fn rows(&mut self, query: &str) -> Vec<PgRow> {
        self.try_rows(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }
}

/// Gives a folder to the user that PostgreSQL runs as.
fn own(folder: &Path) {
    let me = String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap();
    if me.trim() == "0" {
        std::os::unix::fs::chown(folder, Some(id("-u", "postgres")), Some(id("-g", "postgres"))).unwrap();
    }
}

fn spawn(folder: &Path, data: &str, port: u16) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command("postgres")
        .arg("-D")
        .arg(folder.join(data))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
        .args(["-c", &format!("unix_socket_directories={}", folder.display())])
        // Processes are killed here, never the machine: what was written is there without being forced to disk.
        .args(["-c", "fsync=off", "-c", "max_connections=200"])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("PostgreSQL is installed: scripts/services install")
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kill(processes: &[u32]) {
    for process in processes {
        // Those that are gone already say so.
        let _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}
