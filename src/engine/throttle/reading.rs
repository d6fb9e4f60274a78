//! Reading one signal of a throttle, whatever it is.

use std::time::Duration;

use crate::bounds::throttle::ANSWER_WITHIN_MS;
use crate::copy::throttle::{Part, Reading};
use crate::driver::{self, SharedDriver};
use crate::engine::patience::within;
use crate::engine::window;
use crate::run::{Gauge, Signal, Value, Window};
use crate::store::SharedStore;

use super::{Surroundings, http};

/// Where a signal is read.
pub(super) enum Source {
    Gauge {
        driver: SharedDriver,
        gauge: Gauge,
        tables: Vec<String>,
    },
    Query {
        driver: SharedDriver,
        query: String,
    },
    Http {
        url: String,
        is_bounded: bool,
    },
    File {
        path: String,
    },
    Window {
        window: Window,
        store: SharedStore,
    },
    /// Nowhere: its database is not there.
    Nowhere(String),
}

impl Source {
    pub(super) fn of(signal: &Signal, is_bounded: bool, around: &Surroundings) -> Self {
        let driver = signal.target().map(|target| (target, around.drivers.get(target).cloned()));
        match (signal, driver) {
            (_, Some((target, None))) => Self::Nowhere(format!("{target} was not opened")),
            (Signal::Gauge { gauge, .. }, Some((_, Some(driver)))) => {
                Self::Gauge { driver, gauge: *gauge, tables: around.tables.clone() }
            }
            (Signal::Query { query, .. }, Some((_, Some(driver)))) => {
                Self::Query { driver, query: query.clone() }
            }
            (Signal::Http { url }, _) => Self::Http { url: url.clone(), is_bounded },
            (Signal::File { path }, _) => Self::File { path: path.clone() },
            (Signal::Window(window), _) => {
                Self::Window { window: window.clone(), store: around.store.clone() }
            }
            (Signal::Gauge { .. } | Signal::Query { .. }, None) => {
                Self::Nowhere("it has no database".to_owned())
            }
        }
    }

    /// Looks once. Whatever goes wrong is a reading, too.
    pub(super) async fn read(&self) -> Reading {
        match self {
            Self::Gauge { driver, gauge, tables } => {
                match within(ANSWER_WITHIN_MS, driver.gauge(*gauge, tables)).await {
                    Ok(parts) => Reading::Parts(parts),
                    Err(error) => failed(&error),
                }
            }
            Self::Query { driver, query } => {
                match within(ANSWER_WITHIN_MS, driver.value(query)).await {
                    Ok(value) => of_value(&value),
                    Err(error) => failed(&error),
                }
            }
            Self::Http { url, is_bounded } => http::ask(url.clone(), *is_bounded).await,
            Self::File { path } => of_file(path).await,
            Self::Window { window, store } => of_window(window, store).await,
            Self::Nowhere(why) => Reading::Failed(why.clone()),
        }
    }
}

/// With what helps, since nobody sees an error of a throttle but by its reason.
fn failed(error: &driver::Error) -> Reading {
    let help = match error {
        driver::Error::Failed(failure) => failure.help.as_ref(),
        _ => None,
    };
    let help = help.map_or_else(String::new, |help| format!(" ({help})"));
    Reading::Failed(format!("{error}{help}"))
}

/// A number; a truth value counts as 1 or 0, and no value is none.
#[allow(clippy::cast_precision_loss)] // a limit that is off in the 16th digit limits the same
fn of_value(value: &Value) -> Reading {
    let number = match value {
        Value::Null => None,
        Value::Boolean(truth) => Some(f64::from(u8::from(*truth))),
        Value::Integer(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        Value::Text(text) => match text.trim().parse() {
            Ok(number) => Some(number),
            Err(_) => return Reading::Failed("the query gave text, and no number".to_owned()),
        },
    };
    Reading::Parts(vec![Part { of: None, value: number }])
}

async fn of_file(path: &str) -> Reading {
    let look = tokio::fs::try_exists(path);
    match tokio::time::timeout(Duration::from_millis(ANSWER_WITHIN_MS), look).await {
        Ok(Ok(true)) => Reading::Hold(format!("{path} is there")),
        Ok(Ok(false)) => Reading::Go,
        Ok(Err(error)) => Reading::Failed(format!("{path}: {error}")),
        Err(_) => Reading::Failed(format!("{path}: no answer")),
    }
}

async fn of_window(asked: &Window, store: &SharedStore) -> Reading {
    let now = match store.now().await {
        Ok(now) => now,
        Err(error) => return Reading::Failed(error.to_string()),
    };
    match window::look(asked, now) {
        Ok(seen) => match (seen.shut, seen.changes) {
            (None, _) => Reading::Go,
            (Some(why), Some((_, opens))) => Reading::Hold(format!("{why}; opens {opens}")),
            (Some(why), None) => Reading::Hold(why),
        },
        Err(error) => Reading::Failed(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_or_it_is_none() {
        for (value, number) in [
            (Value::Integer(7), Some(7.0)),
            (Value::Real(0.5), Some(0.5)),
            (Value::Boolean(true), Some(1.0)),
            (Value::Text(" 12.5 ".into()), Some(12.5)),
            (Value::Null, None),
        ] {
            let expected = Reading::Parts(vec![Part { of: None, value: number }]);
            assert_eq!(of_value(&value), expected, "{value:?}");
        }
        assert!(matches!(of_value(&Value::Text("busy".into())), Reading::Failed(_)));
    }

    #[tokio::test]
    async fn a_file_holds_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stop");
        let path = path.to_str().unwrap();
        assert_eq!(of_file(path).await, Reading::Go);
        std::fs::write(path, "").unwrap();
        assert_eq!(of_file(path).await, Reading::Hold(format!("{path} is there")));
        // What can't be looked at is not taken for absent.
        assert!(matches!(of_file(&format!("{path}/in")).await, Reading::Failed(_)));
    }
}
