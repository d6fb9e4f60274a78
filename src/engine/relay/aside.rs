//! What a relay lets be for some seconds, so that everything else goes on.
//!
//! Absent on purpose: tries. What is let be counts none, and comes again by itself.

use std::collections::BTreeMap;

use crate::bounds::relay::ASIDE_FOR_MS;
use crate::clock::Stopwatch;
use crate::driver::crossing::Change;
use crate::run::MappingName;

#[derive(Debug, Default)]
pub(super) struct Aside {
    changes: BTreeMap<u64, Stopwatch>,
    mappings: BTreeMap<MappingName, Stopwatch>,
    /// What was said of mappings that were let be, until they have been carried again.
    said: BTreeMap<MappingName, String>,
}

impl Aside {
    /// What was let be long enough comes again.
    pub(super) fn come_again(&mut self) {
        self.changes.retain(|_, since| since.elapsed_ms() < ASIDE_FOR_MS);
        self.mappings.retain(|_, since| since.elapsed_ms() < ASIDE_FOR_MS);
    }

    /// Lets a change be.
    pub(super) fn leave(&mut self, version: u64) {
        self.changes.insert(version, Stopwatch::start());
    }

    /// Lets all changes of a mapping be. Whether what is to be said of that is news.
    pub(super) fn leave_all_of(&mut self, mapping: MappingName, said: &str) -> bool {
        self.mappings.insert(mapping.clone(), Stopwatch::start());
        self.said.insert(mapping, said.to_owned()).as_deref() != Some(said)
    }

    /// The changes that are let be by themselves.
    pub(super) fn changes(&self) -> impl Iterator<Item = u64> {
        self.changes.keys().copied()
    }

    /// Whether all changes of a mapping are let be.
    pub(super) fn has(&self, mapping: &MappingName) -> bool {
        self.mappings.contains_key(mapping)
    }

    /// The mappings that were let be, and are carried now.
    pub(super) fn carried_again(&mut self, changes: &[Change]) -> Vec<MappingName> {
        let is_carried = |name: &MappingName| changes.iter().any(|it| it.mapping == *name);
        let again: Vec<_> = self.said.keys().filter(|name| is_carried(name)).cloned().collect();
        self.said.retain(|name, _| !again.contains(name));
        again
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;
    use crate::driver::crossing::What;

    #[test]
    fn what_is_let_be_is_told_once_until_it_is_carried() {
        let mut aside = Aside::default();
        assert!(aside.leave_all_of("users".into(), "no table"));
        assert!(!aside.leave_all_of("users".into(), "no table"));
        assert!(aside.leave_all_of("users".into(), "no key"));
        assert!(aside.has(&"users".into()) && !aside.has(&"follows".into()));
        let change =
            |name: &str| Change { version: 1, mapping: name.into(), what: What::Emptied, tries: 0 };
        assert_eq!(aside.carried_again(&[change("follows")]), []);
        assert_eq!(aside.carried_again(&[change("users")]), ["users".into()]);
        assert!(aside.leave_all_of("users".into(), "no key"));
        aside.leave(7);
        aside.come_again();
        assert_eq!(aside.changes().collect::<Vec<_>>(), [7]);
    }
}
