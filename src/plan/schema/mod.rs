//! The JSON Schemas of plans and projects, for editors. Committed under `docs/`, and equal to what is made here by test.
//!
//! The structs describe what the readers in `read/` accept; they are never filled when a plan is read, since a typed reader
//! would stop at the first mistake and lose its place. Tests fill them from every good fixture, so the two can't part.
#![allow(dead_code)]

mod plan;
mod project;
mod throttle;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::bounds::document::APPROVALS_MAX;

/// Which schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaKind {
    /// Of plans.
    Plan,
    /// Of project files.
    Project,
}

/// The JSON Schema of a kind of document.
#[must_use]
pub fn schema(kind: SchemaKind) -> Value {
    let mut schema = match kind {
        SchemaKind::Plan => schemars::schema_for!(plan::Plan).to_value(),
        SchemaKind::Project => schemars::schema_for!(project::Project).to_value(),
    };
    without_null(&mut schema);
    schema
}

/// A key may be left out, but one without a value is a mistake; an `Option` alone would allow both.
fn without_null(schema: &mut Value) {
    let null = serde_json::json!({ "type": "null" });
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(entries) => {
            entries.values_mut().for_each(without_null);
            if let Some(Value::Array(types)) = entries.get_mut("type")
                && let [one, Value::String(other)] = types.as_slice()
                && other == "null"
            {
                let one = one.clone();
                entries.insert("type".to_owned(), one);
            }
            if let Some(Value::Array(either)) = entries.get_mut("anyOf")
                && let [Value::Object(one), other] = either.as_slice()
                && *other == null
            {
                let one = one.clone();
                entries.remove("anyOf");
                entries.extend(one);
            }
        }
        _ => {}
    }
}

/// The version of the format.
#[derive(Deserialize, JsonSchema)]
enum ApiVersion {
    #[serde(rename = "phasegate/v1")]
    V1,
}

/// A plain value.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(f64),
    Boolean(bool),
    Null(()),
}

/// A time with its unit, such as 100ms, 5s, 10m, 1h or 3days.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Duration {
    Text(#[schemars(regex(pattern = "^\\s*([0-9]+\\s*[a-zA-Zµ]+\\s*)+$"))] String),
    Zero(#[schemars(range(min = 0, max = 0))] u32),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Approval {
    group: String,
    #[schemars(range(min = 1, max = APPROVALS_MAX))]
    count: Option<u32>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::plan::read::STEP_KEYS;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    #[test]
    fn the_committed_schemas_are_these() {
        for (kind, file) in [(SchemaKind::Plan, "plan"), (SchemaKind::Project, "project")] {
            let path = format!("{ROOT}/docs/{file}.schema.json");
            let made = format!("{}\n", serde_json::to_string_pretty(&schema(kind)).unwrap());
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == made, "{path} is not up to date: run with UPDATE_EXPECT=1");
        }
    }

    #[test]
    fn the_keys_of_a_step_are_those_that_are_read() {
        let schema = schema(SchemaKind::Plan);
        let properties = schema.pointer("/$defs/Step/properties").unwrap().as_object().unwrap();
        let mut known: Vec<&str> = STEP_KEYS.to_vec();
        known.sort_unstable();
        assert_eq!(properties.keys().map(String::as_str).collect::<Vec<_>>(), known);
    }

    #[test]
    fn every_good_plan_fits_the_schema() {
        let mut seen = 0;
        for folder in ["tests/plans/good", "tests/plans/later", "plans"] {
            for entry in std::fs::read_dir(format!("{ROOT}/{folder}")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|ext| ext != "yaml") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let value = crate::plan::source::value_for_tests(&text);
                let fits = if text.contains("kind: Project") {
                    serde_json::from_value::<project::Project>(value).map(drop)
                } else {
                    serde_json::from_value::<plan::Plan>(value).map(drop)
                };
                assert!(fits.is_ok(), "{}: {}", path.display(), fits.unwrap_err());
                seen += 1;
            }
        }
        assert!(seen > 3, "no plans were looked at");
    }
}
