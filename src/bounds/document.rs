//! What a plan or a project file may say: how large it may be, and the least and the most of what stands in it.
//!
//! A file may come from anybody, so its size is bounded before anything is built from it. A value beyond what anybody means is taken
//! for a slip, and told at its place.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The largest file that is read, in bytes. Far above what people write, and little enough to be read into memory whole.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The deepest nesting, in levels. Readers of the tree go down with each level, and no plan goes half as deep.
pub const LEVELS_MAX: usize = 64;

/// The most values in a document, those that aliases repeat included: a few lines of aliases can stand for billions.
pub const NODES_MAX: usize = 200_000;

/// The most findings that are kept. More of them help nobody, and a hostile file can't make more.
pub const FINDINGS_MAX: usize = 200;

/// The most steps of a plan. Which steps stand behind which is kept for each pair of them, so memory grows with the square.
pub const STEPS_MAX: usize = 5_000;

/// The longest name of a plan, step, target, mapping or group, in bytes: as long as a database's own names are.
pub const NAME_BYTES_MAX: usize = 63;

/// The longest duration that may be written: anything longer is a slip.
pub const DURATION_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// The most attempts that a step may be given. With waits between them that is days, beyond which somebody has to look.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// The most chunks of a copy or a comparison at once that may be asked for, in plans and while it runs. Drivers have lower limits of
/// their own; more than this is a slip.
pub const WORKERS_MAX: u32 = 64;

/// The most approvals of one group that a gate may ask for: no group of people who approve is larger.
pub const APPROVALS_MAX: u32 = 100;

/// The most rows that a sample may look at: whoever wants more compares everything.
pub const SAMPLE_ROWS_MAX: u32 = 100_000_000;

/// As many rows as may be parked at most: they are tried again one by one.
pub const PARK_MAX: u32 = 100_000;

/// How many changes a gate may let wait. None is a wish that can be met; more than a billion is a slip.
pub const GATE_LAG_ROWS: RangeInclusive<u32> = 0..=1_000_000_000;

/// The least and the most changes that a limit of an outbox may be: with none no change could ever wait, and more than a billion is
/// a slip.
pub const OUTBOX_ROWS: RangeInclusive<u32> = 1..=1_000_000_000;

/// The least time that a limit of an outbox may be, in milliseconds: a relay that carries changes all the time is a second behind now
/// and then.
pub const OUTBOX_AGE_MIN_MS: u64 = 1_000;

/// The least size that a limit of an outbox may be, in bytes: 1 MiB, since a few rows may take less room than one large one.
pub const OUTBOX_BYTES_MIN: u64 = 1 << 20;

/// The least and the most time between two looks of a throttle, in milliseconds: from a tenth of a second, below which looking is
/// work of its own, to an hour, beyond which nothing is held back in time.
pub const THROTTLE_EVERY_MS: RangeInclusive<u64> = 100..=3_600_000;

/// A stretch of days without an opening that is taken for a slip, in days: a window that opens less than once a year.
pub const FREEZE_DAYS_MAX: i64 = 366;
