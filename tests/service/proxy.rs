//! A way to the database that can hang: bytes no longer pass, and no connection breaks.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::deployment::Deployment;

const STORE: &str = "HEADROOM_STORE__URL";

/// Passes bytes between whoever connects and a server, until it is told to hang.
pub(crate) struct Proxy {
    pub(crate) address: String,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    /// How many connections were made.
    made: AtomicUsize,
    /// Connections before this one are silent for good.
    silent_before: AtomicUsize,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self, connection: usize) {
        let mut guard = self.lock.lock().unwrap();
        while self.closed.load(Ordering::Acquire) || connection < self.silent_before.load(Ordering::Acquire) {
            guard = self.opened.wait(guard).unwrap();
        }
    }
}

impl Proxy {
    pub(crate) fn to(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gate = Arc::new(Gate::default());
        let (server, passing) = (server.to_owned(), gate.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, gate) = (client.unwrap(), passing.clone());
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let number = gate.made.fetch_add(1, Ordering::AcqRel);
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let other = gate.clone();
                thread::spawn(move || pass(from, to, &other, number));
                thread::spawn(move || pass(upstream, client, &gate, number));
            }
        });
        Proxy { address, gate }
    }

    /// One that stands before the database of a deployment from now on.
    pub(crate) fn to_database_of(deployment: &mut Deployment) -> Proxy {
        let direct = deployment.environment[STORE].clone();
        let (before, rest) = direct.split_once("127.0.0.1:").expect("the test's database is at 127.0.0.1");
        let (port, database) = rest.split_once('/').unwrap();
        let proxy = Proxy::to(&format!("127.0.0.1:{port}"));
        deployment.environment.insert(STORE.to_owned(), format!("{before}{}/{database}", proxy.address));
        proxy
    }

    /// Nothing passes on the connections of now any more, nor do they end; new ones are as they should be.
    pub(crate) fn silence(&self) {
        let _guard = self.gate.lock.lock().unwrap();
        self.gate.silent_before.store(self.gate.made.load(Ordering::Acquire), Ordering::Release);
    }

    pub(crate) fn hang(&self, hangs: bool) {
        let _guard = self.gate.lock.lock().unwrap();
        self.gate.closed.store(hangs, Ordering::Release);
        self.gate.opened.notify_all();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: &Gate, connection: usize) {
    let mut buffer = [0; 16_384];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        gate.pass(connection);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            // The other side may be gone already.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
