//! A wire between the program and a server, on which one thing goes wrong: with what is sent over it as the n-th piece.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never comes, and the connection is gone.
    Lost,
    /// It comes, and its answer is lost with the connection.
    AnswerLost,
    /// The connection is gone in the middle of its answer.
    AnswerCut,
    /// Nothing comes over this connection any more, in either direction, and after a while it is gone.
    Swallowed,
    /// It comes late.
    Late,
}

pub const FAULTS: [Fault; 5] =
    [Fault::Lost, Fault::AnswerLost, Fault::AnswerCut, Fault::Swallowed, Fault::Late];

/// How long what is swallowed or late takes: long enough for others to begin something meanwhile.
const WHILE: Duration = Duration::from_secs(3);

/// The wire. It ends with the process.
pub struct Wire {
    /// Where the server is to be had over it.
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Pieces that the program has sent.
    sent: AtomicU64,
    planned: Mutex<Option<(u64, Fault)>>,
}

impl Wire {
    pub fn to(url: &str) -> Self {
        let mut here = url::Url::parse(url).unwrap();
        let server = (here.host_str().unwrap().to_owned(), here.port().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        here.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                join(&client, &server, &kept);
            }
        });
        Self { url: here.into(), shared }
    }

    /// Has this go wrong with what is sent as the n-th piece from now on.
    pub fn plan(&self, nth: u64, fault: Fault) {
        let sent = self.sent();
        *self.shared.planned.lock().unwrap() = Some((sent + nth, fault));
    }

    /// From now on nothing goes wrong. Whether something has.
    pub fn is_over(&self) -> bool {
        self.shared.planned.lock().unwrap().take().is_none()
    }

    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Counts a piece. What goes wrong with it, if something does.
    fn count(&self) -> Option<Fault> {
        let sent = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let mut planned = self.planned.lock().unwrap();
        let (_, fault) = planned.filter(|(nth, _)| sent >= *nth)?;
        *planned = None;
        Some(fault)
    }
}

/// What is to happen to the answers on a connection.
type Answers = Arc<Mutex<Option<Fault>>>;

fn join(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    let answers = Answers::default();
    let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((from, to), (back_to, back_from)) = (ends(), ends());
    let (told, shared) = (Arc::clone(&answers), Arc::clone(shared));
    std::thread::spawn(move || {
        ask((&from, &to), &shared, &told);
        hang_up(&from, &to);
    });
    std::thread::spawn(move || {
        answer((&back_from, &back_to), &answers);
        hang_up(&back_from, &back_to);
    });
}

fn hang_up(one: &TcpStream, other: &TcpStream) {
    for end in [one, other] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn ask((mut from, mut to): (&TcpStream, &TcpStream), shared: &Shared, answers: &Answers) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if is_swallowed(answers) {
            continue;
        }
        match shared.count() {
            None => {}
            Some(Fault::Lost) => return,
            Some(Fault::Late) => std::thread::sleep(WHILE),
            Some(fault) => {
                *answers.lock().unwrap() = Some(fault);
                if fault == Fault::Swallowed {
                    let ends = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        std::thread::sleep(WHILE);
                        hang_up(&ends.0, &ends.1);
                    });
                    continue;
                }
            }
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn answer((mut from, mut to): (&TcpStream, &TcpStream), answers: &Answers) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let fault = *answers.lock().unwrap();
        match fault {
            Some(Fault::Swallowed) => continue,
            Some(Fault::AnswerLost) => return,
            Some(Fault::AnswerCut) => {
                let _ = to.write_all(&buffer[..read / 2]);
                return;
            }
            Some(Fault::Lost | Fault::Late) | None => {}
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn is_swallowed(answers: &Answers) -> bool {
    matches!(*answers.lock().unwrap(), Some(Fault::Swallowed))
}
