//! A way to the database that can hang: bytes no longer pass, and no connection breaks.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Passes bytes between whoever connects and a server, until it is told to hang.
pub(crate) struct Proxy {
    pub(crate) address: String,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut guard = self.lock.lock().unwrap();
        while self.closed.load(Ordering::Acquire) {
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
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let other = gate.clone();
                thread::spawn(move || pass(from, to, &other));
                thread::spawn(move || pass(upstream, client, &gate));
            }
        });
        Proxy { address, gate }
    }

    pub(crate) fn hang(&self, hangs: bool) {
        let _guard = self.gate.lock.lock().unwrap();
        self.gate.closed.store(hangs, Ordering::Release);
        self.gate.opened.notify_all();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = [0; 16_384];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        gate.pass();
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            // The other side may be gone already.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
