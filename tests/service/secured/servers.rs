//! A Kafka and a PostgreSQL of a test's own, that speak with nobody but over TLS and with a password.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use crate::certificates::Signed;
use crate::deployment::until;
use crate::ports::free_port;

pub(crate) const USER: &str = "headroom";

/// A server; it is killed at the end of the test.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the programs lie, once they are there.
pub(crate) fn programs() -> BTreeMap<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
    let output = Command::new(script).arg("programs").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split_once('=')).map(|(name, at)| (name.to_owned(), at.to_owned())).collect()
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Runs it to a good end.
fn done(command: &mut Command, log: &Path) {
    let status = command.stdout(File::create(log).unwrap()).stderr(File::options().append(true).open(log).unwrap());
    let status = status.status().unwrap();
    assert!(status.success(), "{command:?}: {}", fs::read_to_string(log).unwrap());
}

/// A broker with a SASL_SSL listener for SCRAM and PLAIN.
pub(crate) fn kafka(programs: &BTreeMap<String, String>, folder: &Path, signed: &Signed, password: &str) -> Server {
    let (port, control) = (free_port(), free_port());
    let keys = folder.join("kafka.pem");
    fs::write(&keys, format!("{}{}", signed.key, signed.certificate)).unwrap();
    let properties = folder.join("server.properties");
    let module = "org.apache.kafka.common.security";
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{control}\n\
         listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}\n\
         advertised.listeners=SASL_SSL://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=SASL_SSL\nlistener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
         ssl.keystore.type=PEM\nssl.keystore.location={keys}\nssl.truststore.type=PEM\nssl.truststore.location={keys}\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required username=\"broker\" \
         password=\"{password}\" user_broker=\"{password}\" user_{USER}=\"{password}\";\n\
         listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         log.dirs={logs}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        keys = keys.display(),
        logs = folder.join("kafka-logs").display(),
    );
    fs::write(&properties, text).unwrap();
    let java = || {
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-cp", &format!("{}/*", programs["kafka_lib"])]);
        java
    };
    let scram = |mechanism: &str| format!("{mechanism}=[name={USER},password={password}]");
    let mut format = java();
    format.args(["kafka.tools.StorageTool", "format", "-t", "5mTm8o4eQ7mXq0yQ0hE3Zg", "-c"]).arg(&properties);
    format.args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")]);
    done(&mut format, &folder.join("kafka-format.log"));
    let log = File::create(folder.join("kafka.log")).unwrap();
    let mut broker = java();
    broker.arg("kafka.Kafka").arg(&properties).stdout(log.try_clone().unwrap()).stderr(log);
    let mut server = Server { process: broker.spawn().unwrap(), port };
    until("Kafka answers", || answers(port) || server.process.try_wait().unwrap().is_some());
    assert!(answers(port), "{}", fs::read_to_string(folder.join("kafka.log")).unwrap());
    server
}

/// A database that takes nobody but over TLS.
pub(crate) fn postgres(programs: &BTreeMap<String, String>, folder: &Path, signed: &Signed, password: &str) -> Server {
    // PostgreSQL refuses to run as root.
    let user = is_root().then(|| (id("-u"), id("-g")));
    let (port, folder) = (free_port(), folder.join("postgres"));
    fs::create_dir(&folder).unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = user {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path.display().to_string()
    };
    if let Some((uid, gid)) = user {
        chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    let (key, certificate) = (secret("key.pem", &signed.key), secret("certificate.pem", &signed.certificate));
    let passwords = secret("password", password);
    let rules = secret("hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\n");
    let data = folder.join("db").display().to_string();
    let program = |name: &str| {
        let mut command = Command::new(format!("{}/{name}", programs["pg_bin"]));
        command.current_dir("/");
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command
    };
    let mut making = program("initdb");
    making.args(["-D", &data, "-U", USER, "-A", "scram-sha-256", "--pwfile", &passwords, "-E", "UTF8"]);
    done(making.args(["--locale=C.UTF-8"]), &folder.join("initdb.log"));
    let log = File::create(folder.join("log")).unwrap();
    let mut serving = program("postgres");
    serving.args(["-D", &data, "-p", &port.to_string(), "-k", &folder.display().to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={certificate}"),
        format!("ssl_key_file={key}"),
        format!("hba_file={rules}"),
    ] {
        serving.args(["-c", &setting]);
    }
    let process = serving.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut server = Server { process, port };
    until("PostgreSQL answers", || answers(port) || server.process.try_wait().unwrap().is_some());
    assert!(answers(port), "{}", fs::read_to_string(folder.join("log")).unwrap());
    server
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")) == "0"
}

/// A number of the user that Debian's package runs PostgreSQL as.
fn id(which: &str) -> u32 {
    output(Command::new("id").args([which, "postgres"])).parse().unwrap()
}

fn output(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
}
