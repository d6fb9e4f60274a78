//! A network that fails at the worst moment: a relay between a store and its server that cuts the connection at a COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

/// When the connection is cut. It happens once; later connections are whole.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Cut {
    /// Not at all.
    Never = 0,
    /// When the COMMIT has come from the client, before the server sees it.
    BeforeCommit = 1,
    /// When the server has answered the COMMIT, before the client sees that.
    AfterCommit = 2,
    /// As before, and no other connection carries anything any more.
    ForGood = 3,
}

/// The relay. It ends with the process.
pub struct Proxy {
    pub address: SocketAddr,
    cut: Arc<AtomicU8>,
}

impl Proxy {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicU8::new(Cut::Never as u8));
        let shared = Arc::clone(&cut);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.load(Ordering::SeqCst) == CLOSED {
                    continue;
                }
                let upstream = TcpStream::connect(server).unwrap();
                relay(&client, &upstream, &shared);
            }
        });
        Self { address, cut }
    }

    pub fn arm(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether the connection was cut since it was armed.
    pub fn has_cut(&self) -> bool {
        let cut = self.cut.load(Ordering::SeqCst);
        cut == Cut::Never as u8 || cut == CLOSED
    }
}

/// No connection is let through any more.
const CLOSED: u8 = 100;

fn relay(client: &TcpStream, server: &TcpStream, cut: &Arc<AtomicU8>) {
    // Which cut the present COMMIT leads to, once its answer comes; shared by both directions of this connection.
    let pending = Arc::new(AtomicU8::new(0));
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (armed, waits) = (Arc::clone(cut), Arc::clone(&pending));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if armed.load(Ordering::SeqCst) == CLOSED {
                break;
            }
            let is_commit = buffer[..read].windows(7).any(|bytes| bytes == b"COMMIT\0");
            if is_commit {
                match armed.load(Ordering::SeqCst) {
                    1 => {
                        armed.store(0, Ordering::SeqCst);
                        break;
                    }
                    how @ (2 | 3) => waits.store(how, Ordering::SeqCst),
                    _ => {}
                }
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let armed = Arc::clone(cut);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            match pending.load(Ordering::SeqCst) {
                2 => {
                    armed.store(0, Ordering::SeqCst);
                    break;
                }
                3 => {
                    armed.store(CLOSED, Ordering::SeqCst);
                    break;
                }
                _ => {}
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
