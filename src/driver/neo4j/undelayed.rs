//! Sockets that send at once what they are given.
//!
//! The library leaves Nagle's algorithm on: the last piece of a long statement waits until those before it are acknowledged, and a
//! server that waits for that very piece acknowledges them up to 40 ms late. Of a batch of 5,000 changes that was a fifth of the time.
//! The library has no setting for it and gives nobody its sockets, so they are found among those of the process. Where that is
//! refused (a sandbox without `pidfd_getfd`, a kernel before 5.6, another system) everything goes on, only later.

/// Has every TCP socket of this process send at once.
#[cfg(target_os = "linux")]
pub(super) fn undelay() {
    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    for entry in open.flatten().filter(is_socket) {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Another descriptor of the same socket, which is closed again here. One that was closed meanwhile is nobody's.
        let Ok(same) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        // What isn't TCP refuses it. What is no socket any more is a file that came in its place: to close another descriptor of it
        // would give up the locks that this process has on it, which may be SQLite's.
        if rustix::net::sockopt::set_tcp_nodelay(&same, true) == Err(Errno::NOTSOCK) {
            std::mem::forget(same);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn undelay() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    /// Whether the system lets a process have its own descriptors, which some sandboxes don't.
    fn is_permitted() -> bool {
        use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
        pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|own| pidfd_getfd(own, 0, PidfdGetfdFlags::empty()))
            .is_ok()
    }

    #[test]
    fn a_socket_that_nobody_gave_us_sends_at_once() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        assert!(!socket.nodelay().unwrap());
        super::undelay();
        // Where it is not permitted nothing is changed, and nothing fails.
        assert_eq!(socket.nodelay().unwrap(), is_permitted());
    }
}
