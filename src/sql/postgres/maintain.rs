//! Statements about storage and sessions: VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH, LOCK, COPY, EXPLAIN, cursors.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::{Facts, LockMode, RowWork};
use super::parse::{child, descendants, has, qualified};
use super::{is_unknown, lock, read as read_any, rows};

/// Reads one of them; false if it is something else.
pub(super) fn read(node: &SyntaxNode, facts: &mut Facts) -> bool {
    match node.kind() {
        SyntaxKind::VACUUM => vacuum(node, facts),
        SyntaxKind::ANALYZE => {
            let held = (LockMode::ShareUpdateExclusive, RowWork::None);
            for table in tables(node, SyntaxKind::TABLE_RELATION_NAME) {
                lock(facts, &table, held, "it reads a sample of the rows");
            }
        }
        SyntaxKind::CLUSTER => cluster(node, facts),
        SyntaxKind::REINDEX => reindex(node, facts),
        SyntaxKind::REFRESH => refresh(node, facts),
        SyntaxKind::LOCK => lock_tables(node, facts),
        SyntaxKind::COPY => copy(node, facts),
        SyntaxKind::EXPLAIN => explain(node, facts),
        SyntaxKind::DECLARE => rows::read(node, facts),
        SyntaxKind::FETCH
        | SyntaxKind::MOVE
        | SyntaxKind::CLOSE
        | SyntaxKind::NOTIFY
        | SyntaxKind::CHECKPOINT
        | SyntaxKind::DEALLOCATE => {}
        _ => return false,
    }
    true
}

fn tables(node: &SyntaxNode, kind: SyntaxKind) -> Vec<String> {
    descendants(node, kind).filter_map(|table| qualified(&table)).collect()
}

fn vacuum(node: &SyntaxNode, facts: &mut Facts) {
    facts.outside_transaction = Some("VACUUM works in transactions of its own".to_owned());
    let options: Vec<String> = descendants(node, SyntaxKind::VACUUM_OPTION)
        .map(|option| option.text().to_string().to_ascii_lowercase())
        .collect();
    // `FULL false` is taken for FULL: the worse reading.
    let is_full =
        has(node, SyntaxKind::FULL_KW) || options.iter().any(|option| option.starts_with("full"));
    let (held, reason) = if is_full {
        ((LockMode::AccessExclusive, RowWork::Rewrite), "the whole table is copied into a new file")
    } else {
        (
            (LockMode::ShareUpdateExclusive, RowWork::Scan),
            "it goes through the table beside reads and writes",
        )
    };
    for table in tables(node, SyntaxKind::TABLE_RELATION_NAME) {
        lock(facts, &table, held, reason);
    }
}

fn cluster(node: &SyntaxNode, facts: &mut Facts) {
    let named = tables(node, SyntaxKind::TABLE_NAME_REF);
    if named.is_empty() {
        facts.outside_transaction =
            Some("CLUSTER of all tables takes a transaction for each".to_owned());
    }
    for table in named {
        let held = (LockMode::AccessExclusive, RowWork::Rewrite);
        lock(facts, &table, held, "the whole table is copied in the order of an index");
    }
}

fn reindex(node: &SyntaxNode, facts: &mut Facts) {
    let Some(target) =
        node.children().find(|child| child.kind() != SyntaxKind::REINDEX_OPTION_LIST)
    else {
        return is_unknown(facts, "what is indexed again can't be told");
    };
    let is_concurrent = has(&target, SyntaxKind::CONCURRENTLY_KW)
        || descendants(node, SyntaxKind::REINDEX_OPTION_CONCURRENTLY).next().is_some();
    let is_one = matches!(
        target.kind(),
        SyntaxKind::REINDEX_TARGET_INDEX | SyntaxKind::REINDEX_TARGET_TABLE
    );
    if is_concurrent {
        facts.outside_transaction =
            Some("REINDEX CONCURRENTLY works in several transactions of its own".to_owned());
    } else if !is_one {
        facts.outside_transaction =
            Some("REINDEX of a schema or database takes a transaction for each table".to_owned());
    }
    for table in tables(&target, SyntaxKind::TABLE_NAME_REF) {
        let (mode, reason) = if is_concurrent {
            (LockMode::ShareUpdateExclusive, "its indexes are built again beside reads and writes")
        } else {
            (LockMode::Share, "its indexes are built again, and nobody reads by them meanwhile")
        };
        lock(facts, &table, (mode, RowWork::IndexBuild), reason);
    }
}

fn refresh(node: &SyntaxNode, facts: &mut Facts) {
    let Some(view) = child(node, SyntaxKind::VIEW_REF).and_then(|view| qualified(&view)) else {
        return is_unknown(facts, "which view is filled can't be told");
    };
    if has(node, SyntaxKind::CONCURRENTLY_KW) {
        let held = (LockMode::Exclusive, RowWork::Scan);
        lock(facts, &view, held, "its query is run, and rows that differ are written beside reads");
    } else {
        let held = (LockMode::AccessExclusive, RowWork::Rewrite);
        lock(facts, &view, held, "its query is run, and all rows are written anew");
    }
}

fn lock_tables(node: &SyntaxNode, facts: &mut Facts) {
    let clause = child(node, SyntaxKind::LOCK_MODE_CLAUSE).and_then(|clause| clause.first_child());
    let mode = match clause.map(|mode| mode.kind()) {
        Some(SyntaxKind::ACCESS_SHARE) => LockMode::AccessShare,
        Some(SyntaxKind::ROW_SHARE) => LockMode::RowShare,
        Some(SyntaxKind::ROW_EXCLUSIVE) => LockMode::RowExclusive,
        Some(SyntaxKind::SHARE_UPDATE_EXCLUSIVE) => LockMode::ShareUpdateExclusive,
        Some(SyntaxKind::SHARE) => LockMode::Share,
        Some(SyntaxKind::SHARE_ROW_EXCLUSIVE) => LockMode::ShareRowExclusive,
        Some(SyntaxKind::EXCLUSIVE) => LockMode::Exclusive,
        _ => LockMode::AccessExclusive,
    };
    for table in tables(node, SyntaxKind::RELATION_NAME) {
        lock(facts, &table, (mode, RowWork::None), "it is held to the end of the transaction");
    }
}

fn copy(node: &SyntaxNode, facts: &mut Facts) {
    let is_client = |kind| descendants(node, kind).next().is_some();
    if is_client(SyntaxKind::COPY_STDIN) {
        facts.complain(
            "COPY … FROM STDIN reads rows from a client, and there is none",
            "write the rows as INSERT … VALUES, or load them outside of the plan",
        );
    }
    if is_client(SyntaxKind::COPY_STDOUT) {
        facts.complain(
            "COPY … TO STDOUT writes rows to a client, and there is none",
            "write a verify step with a query, or run it outside of the plan",
        );
    }
    let is_read = child(node, SyntaxKind::COPY_TO).is_some();
    if let Some(table) = child(node, SyntaxKind::COPY_TABLE).and_then(|table| qualified(&table)) {
        if is_read {
            lock(facts, &table, (LockMode::AccessShare, RowWork::Scan), "every row is read");
        } else {
            lock(facts, &table, (LockMode::RowExclusive, RowWork::None), "it adds rows");
        }
    }
    rows::read(node, facts);
    if let Some(program) = descendants(node, SyntaxKind::COPY_PROGRAM).next() {
        let what = if has(&program, SyntaxKind::PROGRAM_KW) {
            "it runs a program on the server"
        } else if is_read {
            "it writes a file of the server"
        } else {
            "what stands in a file of the server can't be told"
        };
        is_unknown(facts, what);
    }
}

/// EXPLAIN plans a statement and doesn't run it, unless it is told to ANALYZE.
fn explain(node: &SyntaxNode, facts: &mut Facts) {
    let runs = descendants(node, SyntaxKind::EXPLAIN_ANALYZE).next().is_some()
        || descendants(node, SyntaxKind::EXPLAIN_OPTION_NAME).any(|option| {
            let option = option.text().to_string();
            option.eq_ignore_ascii_case("analyze") || option.eq_ignore_ascii_case("analyse")
        });
    let Some(statement) = node.last_child() else {
        return is_unknown(facts, "what it explains can't be told");
    };
    if runs {
        return read_any(&statement, facts);
    }
    let mut planned = Facts::harmless();
    read_any(&statement, &mut planned);
    for table in planned.tables {
        facts.mention(table);
    }
    for mut held in planned.locks {
        held.work = RowWork::None;
        "it is planned and not run".clone_into(&mut held.reason);
        facts.lock(held);
    }
}
