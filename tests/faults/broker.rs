//! An Apache Kafka of the run's own, which can be killed and comes back with what it had; or two that share partitions.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ports::free_port;
use crate::wait::{patience, until};

/// A broker; it dies with this.
pub(crate) struct Broker {
    /// Its number, as Kafka has it.
    pub(crate) node: i32,
    folder: PathBuf,
    port: u16,
    child: Child,
}

/// Kafka's jars, as scripts/services gets them.
fn jars() -> String {
    let cached = || {
        let cache = std::env::var("XDG_CACHE_HOME").ok().or(std::env::var("HOME").ok().map(|home| home + "/.cache"));
        cache.unwrap_or_default() + "/headroom/kafka-4.1.0"
    };
    let folder = std::env::var("HEADROOM_TEST_KAFKA_LIB").unwrap_or_else(|_| cached());
    assert!(Path::new(&folder).join(".whole").exists(), "{folder} has no Kafka: run `scripts/services install`");
    format!("{folder}/*")
}

impl Broker {
    /// Starts an empty one, with all it has in this folder.
    pub(crate) fn start(folder: &Path) -> Broker {
        let control = free_port();
        Broker::node(folder, 1, 1, control)
    }

    /// Starts two that keep a copy of everything each. The first also says who leads, so it alone must not be killed; what
    /// the second led before it died, it leads again soon after it came back.
    pub(crate) fn pair(folder: &Path) -> [Broker; 2] {
        let control = free_port();
        [1, 2].map(|node| Broker::node(folder, node, 2, control))
    }

    /// One of some that share everything; the first of them says who leads, at the port `control`.
    fn node(folder: &Path, node: i32, copies: usize, control: u16) -> Broker {
        let port = free_port();
        let folder = folder.join(if node == 1 { "kafka".to_owned() } else { format!("kafka-{node}") });
        fs::create_dir(&folder).unwrap();
        let part = if node == 1 {
            format!(
                "process.roles=broker,controller\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}\n"
            )
        } else {
            format!("process.roles=broker\nlisteners=PLAINTEXT://127.0.0.1:{port}\n")
        };
        let properties = format!(
            "{part}node.id={node}\ncontroller.quorum.voters=1@127.0.0.1:{control}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}/logs\nauto.create.topics.enable=false\ndefault.replication.factor={copies}\n\
             offsets.topic.replication.factor={copies}\n\
             offsets.topic.num.partitions=4\ntransaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             leader.imbalance.check.interval.seconds=1\nleader.imbalance.per.broker.percentage=0\n\
             group.initial.rebalance.delay.ms=0\nlog.retention.ms=-1\n",
            folder.display()
        );
        fs::write(folder.join("server.properties"), properties).unwrap();
        let formatted = Command::new("java")
            .args(["-cp", &jars(), "kafka.tools.StorageTool", "format", "-t", "5mTm8o4eQ7mXq0yQ0hE3Zg", "-c"])
            .arg(folder.join("server.properties"))
            .stdout(File::create(folder.join("format.log")).unwrap())
            .status()
            .unwrap();
        assert!(formatted.success(), "Kafka's storage is not formatted: see {}", folder.display());
        let child = spawn(&folder);
        let broker = Broker { node, folder, port, child };
        broker.await_up();
        broker
    }

    /// Where it is.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after a kill; it takes requests then.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder);
        self.await_up();
    }

    /// Flips the last bit of the batch of records that holds an offset, on the disk: once damages it, twice mends it.
    /// Returns the first offset of the batch.
    pub(crate) fn flip(&self, topic: &str, partition: i32, offset: i64) -> i64 {
        let segment = self.folder.join(format!("logs/{topic}-{partition}/{:020}.log", 0));
        let file = File::options().read(true).write(true).open(segment).unwrap();
        let mut at = 0;
        loop {
            // The first offset, the length of what follows, and in that the last offset, counted from the first.
            let mut head = [0; 27];
            file.read_exact_at(&mut head, at).unwrap();
            let number = |from: usize| i64::from(i32::from_be_bytes(head[from..from + 4].try_into().unwrap()));
            let first = i64::from_be_bytes(head[..8].try_into().unwrap());
            let end = at + 12 + u64::try_from(number(8)).unwrap();
            if first + number(23) >= offset {
                let mut last = [0];
                file.read_exact_at(&mut last, end - 1).unwrap();
                file.write_all_at(&[last[0] ^ 1], end - 1).unwrap();
                return first;
            }
            at = end;
        }
    }

    fn await_up(&self) {
        until("Kafka answers", patience(), || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }
}

fn spawn(folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new("java")
        .args(["-Xms128m", "-Xmx384m", "-cp", &jars(), "kafka.Kafka"])
        .arg(folder.join("server.properties"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("java is installed")
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::thread::sleep(Duration::from_millis(10));
    }
}
