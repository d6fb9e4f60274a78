//! SET, RESET and SHOW. A setting that a script makes holds to its end and no longer: its connection is closed behind it.
//! What matters is what it does to the statements below it, and to the run's own row in the same transaction.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::Facts;
use super::is_unknown;
use super::parse::{child, descendants, qualified};

/// Settings that only decide how fast, how much is said, or how values are written.
const HARMLESS: &str = "\
    application_name backend_flush_after bytea_output check_function_bodies client_encoding client_min_messages \
    constraint_exclusion cursor_tuple_fraction datestyle default_statistics_target default_table_access_method \
    default_tablespace default_text_search_config effective_cache_size effective_io_concurrency extra_float_digits \
    from_collapse_limit gin_fuzzy_search_limit hash_mem_multiplier idle_in_transaction_session_timeout intervalstyle jit \
    join_collapse_limit lc_messages lc_monetary lc_numeric lc_time maintenance_io_concurrency maintenance_work_mem \
    max_parallel_maintenance_workers max_parallel_workers max_parallel_workers_per_gather min_parallel_table_scan_size \
    plan_cache_mode random_page_cost seq_page_cost statement_timeout temp_buffers temp_tablespaces timezone vacuum_cost_delay \
    vacuum_cost_limit work_mem xmlbinary xmloption";

/// Reads one of them; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::SET => set(node, facts),
        SyntaxKind::RESET => {
            for parameter in descendants(node, SyntaxKind::CONFIG_PARAMETER_REF) {
                let parameter = qualified(&parameter).unwrap_or_default().to_ascii_lowercase();
                judge(&parameter, "default", facts);
            }
        }
        SyntaxKind::SHOW | SyntaxKind::SET_CONSTRAINTS => {}
        _ => return false,
    }
    true
}

fn set(node: &SyntaxNode, facts: &mut Facts) {
    let Some(target) = node.last_child() else { return };
    match target.kind() {
        SyntaxKind::SET_CONFIG => {
            let parameter =
                child(&target, SyntaxKind::CONFIG_PARAMETER_REF).and_then(|p| qualified(&p));
            let value =
                target.last_child().map(|value| value.text().to_string()).unwrap_or_default();
            let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
            let value =
                value.strip_prefix("TO").or_else(|| value.strip_prefix("to")).unwrap_or(value);
            let parameter = parameter.unwrap_or_default().to_ascii_lowercase();
            judge(&parameter, value.trim().trim_matches('\''), facts);
        }
        SyntaxKind::SET_TIME_ZONE | SyntaxKind::SET_XML_OPTION => {}
        _ => judge("search_path", "", facts),
    }
}

fn judge(parameter: &str, value: &str, facts: &mut Facts) {
    match parameter {
        "search_path" => {
            is_unknown(facts, "SET search_path changes which tables the names behind it mean");
        }
        "session_replication_role" => {
            is_unknown(facts, "triggers don't fire from here on, those of a dual-write neither");
        }
        "row_security" => is_unknown(facts, "it changes which rows the statements behind it see"),
        "lock_timeout" => {
            let is_endless = value
                .trim_start_matches('0')
                .trim_matches(|c: char| c.is_alphabetic())
                .trim()
                .is_empty()
                || value.eq_ignore_ascii_case("default");
            if is_endless {
                facts.complain(
                    "without a lock timeout the step may wait for ever, and everybody behind it",
                    "write `lock_timeout:` on the step with the time that it may wait, and leave this out",
                );
            }
        }
        "standard_conforming_strings" => {
            if !matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "1" | "yes") {
                facts.complain(
                    "it changes where strings end, so that what was read isn't what runs",
                    "write strings with escapes as E'…', and leave this out",
                );
            }
        }
        "synchronous_commit" | "fsync" => facts.complain(
            "what the run records as done has to outlive a crash of the server",
            "leave it out",
        ),
        known if HARMLESS.split_ascii_whitespace().any(|harmless| harmless == known) => {}
        known
            if known.starts_with("enable_") || known.starts_with("log_") || known.contains('.') => {
        }
        known => is_unknown(facts, format!("what {known} changes can't be told")),
    }
}
