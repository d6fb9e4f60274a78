//! Servers that have one database each: a test has one for itself until it ends.

use std::sync::{Condvar, Mutex, PoisonError};

/// The servers that nobody has; `None` before the first test asks for one.
static FREE: Mutex<Option<Vec<String>>> = Mutex::new(None);
static GIVEN_BACK: Condvar = Condvar::new();

/// A server, until this is dropped.
pub struct Turn {
    pub url: String,
}

impl Turn {
    /// Waits for one of these servers, whose URLs have spaces between them. They are the same for every test of a process.
    pub fn at(urls: &str) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let servers = free
                .get_or_insert_with(|| urls.split_whitespace().map(ToOwned::to_owned).collect());
            if let Some(url) = servers.pop() {
                return Self { url };
            }
            free = GIVEN_BACK.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.get_or_insert_default().push(std::mem::take(&mut self.url));
        GIVEN_BACK.notify_one();
    }
}
