//! Names and identifiers as types, so that a step can't be passed where a target is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Wraps a name that its reader has already checked.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A step of a plan, unique in it.
    StepId
);
name!(
    /// The logical name of a database that a plan touches.
    TargetName
);
name!(
    /// A mapping of a plan.
    MappingName
);
name!(
    /// One execution of a pinned plan: a UUID of version 7, so that ids sort by the time of their start.
    RunId
);

/// What stands between a run and the databases that its relay works between.
const RELAY: &str = "/relay/";

impl RunId {
    /// The relay of this run between two databases: what holds leases and slots of its own.
    #[must_use]
    pub fn relay(&self, from: &TargetName, into: &TargetName) -> Self {
        Self::new(format!("{self}{RELAY}{from}/{into}"))
    }

    /// The run that a relay works for; any other run is its own.
    #[must_use]
    pub fn served(&self) -> Self {
        Self::new(self.as_str().split_once(RELAY).map_or(self.as_str(), |(run, _)| run))
    }
}
name!(
    /// A group of people that an approval may be asked of.
    GroupName
);
name!(
    /// An environment of the project file; `default` where there is none.
    EnvironmentName
);
