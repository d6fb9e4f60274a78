//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second for one at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::engine::{Signal, Urgent};

/// Listens from now on. The receiver shows the strongest that has come.
#[must_use]
pub fn listen() -> watch::Receiver<Signal> {
    let (sender, receiver) = watch::channel(Signal::None);
    let (interrupts, terminates) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    // Where the system lets nobody listen, a signal ends the process as it would any other.
    if let (Ok(mut interrupts), Ok(mut terminates)) = (interrupts, terminates) {
        tokio::spawn(async move {
            loop {
                let came = tokio::select! {
                    Some(()) = interrupts.recv() => Urgent::Interrupt,
                    Some(()) = terminates.recv() => Urgent::Terminate,
                    () = sender.closed() => return,
                };
                sender.send_modify(|signal| *signal = after(*signal, came));
            }
        });
    }
    receiver
}

/// What holds after another signal came.
const fn after(before: Signal, came: Urgent) -> Signal {
    match (before, came) {
        (Signal::None, Urgent::Interrupt) => Signal::Interrupt,
        (Signal::None, Urgent::Terminate) => Signal::Terminate,
        (Signal::Interrupt | Signal::Terminate, came) => Signal::Now(came),
        (Signal::Now(first), _) => Signal::Now(first),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_is_urgent_and_the_third_changes_nothing() {
        let first = after(Signal::None, Urgent::Interrupt);
        assert_eq!(first, Signal::Interrupt);
        let second = after(first, Urgent::Terminate);
        assert_eq!(second, Signal::Now(Urgent::Terminate));
        assert_eq!(after(second, Urgent::Interrupt), second);
    }
}
