//! Targets can be reached, and their URLs hold no secrets.

use crate::diagnostic::known as codes;
use crate::run::{Engine, TargetName};

use super::super::project::check_reference;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let surroundings = view.surroundings;
    let environment =
        surroundings.project.and_then(|project| project.environment(surroundings.environment));
    for target in &view.document.targets {
        let name = TargetName::new(target.name.value.as_str());
        let is_overridden = environment
            .and_then(|environment| environment.targets.get(&name))
            .is_some_and(|target| target.url.is_some());
        let Some(url) = &target.url else {
            if !is_overridden {
                let message = format!("the target `{name}` has no `url`");
                reports
                    .error(codes::NO_URL, target.name.span, message)
                    .help("add `url: …`, here or for the environment in phasegate.yaml");
            }
            continue;
        };
        check_reference(url, reports);
        let Some(engine) = target.engine else { continue };
        if let Some(schema) = &target.schema
            && engine.value == Engine::Sqlite
        {
            reports
                .error(
                    codes::KEYS_CONFLICT,
                    schema.span,
                    "SQLite has no schemas to put our objects in",
                )
                .help("remove `schema`: they go by the prefix `phasegate_`");
        }
        if let Some(schema) = &target.schema
            && engine.value == Engine::Postgres
            && (schema.value.starts_with("pg_") || schema.value == "information_schema")
        {
            let message = format!("`{}` is PostgreSQL's own schema", schema.value);
            reports.error(codes::KEYS_CONFLICT, schema.span, message).help(
                "name one that was made for us, or leave `schema` out: then it is `phasegate`",
            );
        }
        let schemes = schemes(engine.value);
        let is_told = !url.value.starts_with("${");
        let fits = |scheme: &&str| {
            url.value.strip_prefix(*scheme).is_some_and(|rest| rest.starts_with(':'))
        };
        if is_told && !schemes.iter().any(fits) {
            // The text isn't repeated: whatever is wrong with it, it may hold a secret.
            reports
                .error(codes::URL, url.span, format!("this is no URL of {}", product(engine.value)))
                .help(format!("it begins with `{}:`", schemes.join(":` or `")));
        }
    }
}

const fn schemes(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Postgres => &["postgres", "postgresql"],
        Engine::Neo4j => &["neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc"],
        Engine::Redis => &["redis", "rediss", "redis+unix", "unix"],
        Engine::Sqlserver => &["sqlserver", "mssql"],
        Engine::Mysql => &["mysql", "mariadb"],
        Engine::Sqlite => &["sqlite"],
    }
}

const fn product(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "PostgreSQL",
        Engine::Neo4j => "Neo4j",
        Engine::Redis => "Redis",
        Engine::Sqlserver => "SQL Server",
        Engine::Mysql => "MySQL",
        Engine::Sqlite => "SQLite",
    }
}
