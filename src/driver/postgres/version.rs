//! Which servers a mapping can be kept on.
//!
//! Absent on purpose: newer versions than those that were tried. PostgreSQL keeps what was there.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::failed;
use crate::driver::Error;

/// The oldest version, as `server_version_num` has it. The triggers tell rows of their own transaction by
/// `pg_current_xact_id()`, which came with it.
const OLDEST: i32 = 130_000;

/// What there is to say of a server that is too old, and what to do.
pub(super) async fn too_old(conn: &mut PgConnection) -> Result<Option<(String, String)>, Error> {
    let doing = "read which version the server is";
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
    )
    .fetch_one(conn)
    .await
    .map_err(failed(doing))?;
    let number: i32 = row.try_get(0).map_err(failed(doing))?;
    let version: String = row.try_get(1).map_err(failed(doing))?;
    Ok(judged(number, &version))
}

fn judged(number: i32, version: &str) -> Option<(String, String)> {
    (number < OLDEST).then(|| {
        (
            format!(
                "PostgreSQL {version} is too old: a sync asks which transaction wrote a row, by pg_current_xact_id(), which came \
                 with version 13"
            ),
            "upgrade the server to version 13 or later".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_13_are_too_old() {
        for (number, version, is_too_old) in [
            (90_624, "9.6.24", true),
            (120_022, "12.22", true),
            (130_000, "13.0", false),
            (140_013, "14.13", false),
            (150_018, "15.18", false),
            (180_000, "18.0", false),
        ] {
            let judged = judged(number, version);
            assert_eq!(judged.is_some(), is_too_old, "{version}");
            if let Some((message, _)) = judged {
                assert!(message.contains(&format!("PostgreSQL {version} is too old")), "{message}");
            }
        }
    }
}
