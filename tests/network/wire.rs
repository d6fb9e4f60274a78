//! A wire between the program and a server, on which one thing goes wrong: with what is sent over it as the n-th piece, or with what
//! comes behind some words. It can also go mute as a whole, and come to itself again.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
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
    /// From it on nothing comes over any connection, in either direction, as from a server that hangs. It comes when that is over.
    Mute,
    /// It comes, and from its answer on nothing does.
    AnswerMute,
}

/// Those after which a connection goes on, or is gone, by itself.
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
    planned: Mutex<Option<(When, Fault)>>,
    silence: Mutex<Silence>,
    heard: Condvar,
    /// Connections that there were.
    joined: AtomicU64,
}

/// With which piece something goes wrong.
enum When {
    Nth(u64),
    /// The one with the last of these words, each of them sent behind the one before, over one connection.
    Behind(Vec<String>),
}

/// What nothing comes over.
#[derive(Default)]
struct Silence {
    is_all: bool,
    /// Connections that were there before this one, for good.
    below: u64,
    has_held: bool,
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
        *self.shared.planned.lock().unwrap() = Some((When::Nth(sent + nth), fault));
    }

    /// Has this go wrong with the last of these words, when all were sent one behind the other over one connection.
    pub fn plan_behind(&self, words: &[&str], fault: Fault) {
        let words = words.iter().map(ToString::to_string).collect();
        *self.shared.planned.lock().unwrap() = Some((When::Behind(words), fault));
    }

    /// From now on nothing comes over any connection.
    pub fn mute(&self) {
        self.shared.mute();
    }

    /// Whether that is so, and something was kept from coming.
    pub fn has_held(&self) -> bool {
        self.shared.silence.lock().unwrap().has_held
    }

    /// What was kept comes now, and all that is sent from now on.
    pub fn unmute(&self) {
        let mut silence = self.shared.silence.lock().unwrap();
        (silence.is_all, silence.has_held) = (false, false);
        drop(silence);
        self.shared.heard.notify_all();
    }

    /// Nothing will ever come over the connections that are there now, as where a server was replaced by another one at its address.
    pub fn forget(&self) {
        self.shared.silence.lock().unwrap().below = self.shared.joined.load(Ordering::SeqCst);
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
    /// Counts a piece. What goes wrong with it, if something does. `found` is how many of the words behind which something is to go wrong
    /// were sent over its connection.
    fn count(&self, piece: &[u8], found: &mut usize) -> Option<Fault> {
        let sent = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let mut planned = self.planned.lock().unwrap();
        let (when, fault) = planned.as_ref()?;
        let is_now = match when {
            When::Nth(nth) => sent >= *nth,
            When::Behind(words) => {
                let has =
                    |word: &str| piece.windows(word.len()).any(|part| part == word.as_bytes());
                while words.get(*found).is_some_and(|word| has(word)) {
                    *found += 1;
                }
                *found == words.len()
            }
        };
        if !is_now {
            return None;
        }
        let fault = *fault;
        *planned = None;
        Some(fault)
    }

    fn mute(&self) {
        self.silence.lock().unwrap().is_all = true;
    }

    /// Waits until something may come over a connection.
    fn hold(&self, connection: u64) {
        let mut silence = self.silence.lock().unwrap();
        while silence.is_all || connection < silence.below {
            silence.has_held = true;
            silence = self.heard.wait(silence).unwrap();
        }
    }
}

/// What is to happen to the answers on a connection.
type Answers = Arc<Mutex<Option<Fault>>>;

fn join(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    let answers = Answers::default();
    let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((from, to), (back_to, back_from)) = (ends(), ends());
    let connection = shared.joined.fetch_add(1, Ordering::SeqCst);
    let (told, ours, shared) = (Arc::clone(&answers), Arc::clone(shared), Arc::clone(shared));
    std::thread::spawn(move || {
        ask((&from, &to), (connection, &ours), &told);
        hang_up(&from, &to);
    });
    std::thread::spawn(move || {
        answer((&back_from, &back_to), (connection, &shared), &answers);
        hang_up(&back_from, &back_to);
    });
}

fn hang_up(one: &TcpStream, other: &TcpStream) {
    for end in [one, other] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn ask(
    (mut from, mut to): (&TcpStream, &TcpStream),
    (connection, shared): (u64, &Shared),
    answers: &Answers,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut found = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if is_swallowed(answers) {
            continue;
        }
        let fault = shared.count(&buffer[..read], &mut found);
        if fault == Some(Fault::AnswerMute) {
            shared.mute();
        } else {
            if fault == Some(Fault::Mute) {
                shared.mute();
            }
            shared.hold(connection);
        }
        match fault {
            None | Some(Fault::Mute | Fault::AnswerMute) => {}
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

fn answer(
    (mut from, mut to): (&TcpStream, &TcpStream),
    (connection, shared): (u64, &Shared),
    answers: &Answers,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        shared.hold(connection);
        let fault = *answers.lock().unwrap();
        match fault {
            Some(Fault::Swallowed) => continue,
            Some(Fault::AnswerLost) => return,
            Some(Fault::AnswerCut) => {
                let _ = to.write_all(&buffer[..read / 2]);
                return;
            }
            Some(Fault::Lost | Fault::Late | Fault::Mute | Fault::AnswerMute) | None => {}
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn is_swallowed(answers: &Answers) -> bool {
    matches!(*answers.lock().unwrap(), Some(Fault::Swallowed))
}
