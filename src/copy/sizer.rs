//! How many rows the next chunk should have, as a pure function of how long chunks took.
//!
//! A chunk holds locks that clients wait for, so its time is bounded and its size follows. Two phases:
//! - *fast*: after the start, and whenever the size is far off. The size follows a decaying sum of rows over a decaying sum
//!   of time, at most 4 times up or down with each sample.
//! - *steady*: 11 samples are collected at one size, and the next size is what would bring the second slowest of them to the
//!   target; upwards at most by half, so that noise doesn't drive it.
//!
//! The constants are those of pt-online-schema-change (decay 0.75) and spirit (p90 of a window, growth by half, panic at 5
//! times the target), put together; simulated over 200 seeds, the pair reaches half to one and a half times the ideal size
//! within 6 chunks of a tenfold change, where spirit's servo alone takes 59. They start at 200 rows because 500 rows of
//! 5 ms each already lock for 2.5 s.
//!
//! Invariants: the size never leaves its bounds; samples of another size, and those in which the chunk waited for somebody
//! or was tried again, change nothing; a chunk that took more than 5 times the target makes the very next one smaller.
//!
//! Absent on purpose: clocks, and time that was not spent in the database. Both are the caller's.

use crate::bounds::copying::{
    MAX_ROWS, MIN_ROWS, START_ROWS, START_TIMES_MAX, START_US, TOOK_US_MAX,
};

/// What the size of chunks is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a chunk should take, in microseconds of database time.
    pub target_us: u64,
    /// The smallest size.
    pub min_rows: u32,
    /// The largest size.
    pub max_rows: u32,
    /// The first size.
    pub start_rows: u32,
}

impl Policy {
    /// The ordinary bounds, with this target. Where chunks may take longer, the first one may be larger.
    #[must_use]
    pub fn with_target_us(target_us: u64) -> Self {
        let times = u32::try_from(target_us / START_US).unwrap_or(START_TIMES_MAX);
        let start_rows = START_ROWS * times.clamp(1, START_TIMES_MAX);
        Self { target_us, min_rows: MIN_ROWS, max_rows: MAX_ROWS, start_rows }
    }
}

/// Samples in the fast phase after the start.
const FAST_AT_START: u32 = 5;
/// Samples in the fast phase after it was entered again.
const FAST_AGAIN: u32 = 3;
/// What is left of the older samples with each new one: 3/4.
const DECAY: (u64, u64) = (3, 4);
/// The largest factor of one change in the fast phase.
const FAST_STEP: u64 = 4;
/// Samples before each change in the steady phase.
const STEADY_SAMPLES: usize = 11;
/// The largest growth in the steady phase: 3/2.
const STEADY_GROWTH: (u64, u64) = (3, 2);
/// How many samples in a row must be far off to leave the steady phase.
const FAR_OFF_SAMPLES: usize = 3;
/// Below target / 3 is far off.
const FAR_BELOW: u64 = 3;
/// Above target * 2 is far off.
const FAR_ABOVE: u64 = 2;
/// Above target * 5 the next chunk is smaller at once.
const PANIC: u64 = 5;
/// The smallest fraction that a panic leaves: 1/10.
const PANIC_STEP: u64 = 10;

/// How one chunk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The size it was planned with.
    pub rows_asked: u32,
    /// The rows it really had: fewer at the end of the source, or where a filter leaves some out.
    pub rows: u32,
    /// Microseconds spent in the database, waits for locks and queues left out.
    pub took_us: u64,
    /// Whether it waited for somebody or was tried again, so that its time says nothing.
    pub contended: bool,
}

/// The size of the next chunk.
#[derive(Clone, Debug)]
pub struct Sizer {
    policy: Policy,
    rows: u32,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Fast {
        samples_left: u32,
        /// Decaying sums of rows and of microseconds.
        rows: u64,
        took_us: u64,
    },
    Steady {
        /// Samples so far, empty chunks included.
        samples: usize,
        /// Times of those that had rows.
        times_us: Vec<u64>,
        /// Whether each of the last ones was nearly full, so that more rows may be asked on its word.
        full: Vec<bool>,
    },
}

impl Phase {
    const fn fast(samples_left: u32) -> Self {
        Self::Fast { samples_left, rows: 0, took_us: 0 }
    }

    fn steady() -> Self {
        Self::Steady {
            samples: 0,
            times_us: Vec::with_capacity(STEADY_SAMPLES),
            full: Vec::with_capacity(STEADY_SAMPLES),
        }
    }
}

impl Sizer {
    /// Begins with the policy's first size. Bounds in the wrong order, and zeros, are put right.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let min_rows = policy.min_rows.max(1);
        let max_rows = policy.max_rows.max(min_rows);
        let start_rows = policy.start_rows.clamp(min_rows, max_rows);
        let policy = Policy { target_us: policy.target_us.max(1), min_rows, max_rows, start_rows };
        Self { policy, rows: start_rows, phase: Phase::fast(FAST_AT_START) }
    }

    /// The size of the next chunk.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Follows another target from now on, in microseconds: at once by as much as it is longer or shorter.
    pub fn set_target_us(&mut self, target_us: u64) {
        let target_us = target_us.max(1);
        let before_us = std::mem::replace(&mut self.policy.target_us, target_us);
        if before_us != target_us {
            self.set(times(u64::from(self.rows), target_us, before_us));
            self.phase = Phase::fast(FAST_AGAIN);
        }
    }

    /// Whether the size has been found, and follows small changes from now on.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Steady { .. })
    }

    /// Learns from a chunk.
    pub fn sample(&mut self, sample: Sample) {
        if sample.contended || sample.rows_asked != self.rows {
            return;
        }
        let took_us = sample.took_us.clamp(1, TOOK_US_MAX);
        if took_us > self.policy.target_us.saturating_mul(PANIC) {
            let least = u64::from(self.rows) / PANIC_STEP;
            self.set(self.scaled(took_us).max(least));
            self.phase = Phase::fast(FAST_AGAIN);
            return;
        }
        match self.phase {
            Phase::Fast { .. } => self.sample_fast(sample, took_us),
            Phase::Steady { .. } => self.sample_steady(sample, took_us),
        }
    }

    fn sample_fast(&mut self, sample: Sample, took_us: u64) {
        let Phase::Fast { samples_left, rows, took_us: sum_us } = &mut self.phase else { return };
        *samples_left -= 1;
        let is_last = *samples_left == 0;
        let mut wanted = u64::from(self.rows);
        // An empty chunk tells nothing of what rows cost.
        if sample.rows > 0 {
            // Rows weigh a thousandfold, so that what is left of small sizes is not lost to whole numbers.
            *rows = *rows * DECAY.0 / DECAY.1 + u64::from(sample.rows_asked) * 1_000;
            *sum_us = *sum_us * DECAY.0 / DECAY.1 + took_us * 1_000;
            wanted = times(*rows, self.policy.target_us, *sum_us);
            if !is_full(sample) {
                wanted = wanted.min(u64::from(self.rows));
            }
        }
        self.set_by_step(wanted);
        if is_last {
            self.phase = Phase::steady();
        }
    }

    fn sample_steady(&mut self, sample: Sample, took_us: u64) {
        let Phase::Steady { samples, times_us, full } = &mut self.phase else { return };
        *samples += 1;
        if sample.rows > 0 {
            times_us.push(took_us);
            full.push(is_full(sample));
        }
        let is_complete = *samples >= STEADY_SAMPLES;
        if let Some(median_us) = far_off(times_us, full, self.policy.target_us) {
            let wanted = self.scaled(median_us);
            self.set_by_step(wanted);
            self.phase = Phase::fast(FAST_AGAIN);
        } else if is_complete {
            let mut slowest_first = std::mem::take(times_us);
            slowest_first.sort_unstable_by(|one, other| other.cmp(one));
            let p90_us = slowest_first.get(slowest_first.len() / 10).copied();
            let grown = u64::from(self.rows) * STEADY_GROWTH.0 / STEADY_GROWTH.1;
            let wanted = p90_us.map_or(grown, |p90_us| grown.min(self.scaled(p90_us)));
            self.set(wanted);
            self.phase = Phase::steady();
        }
    }

    /// The size that would have taken the target, had the cost of a row been this.
    fn scaled(&self, took_us: u64) -> u64 {
        times(u64::from(self.rows), self.policy.target_us, took_us)
    }

    fn set_by_step(&mut self, wanted: u64) {
        let now = u64::from(self.rows);
        self.set(wanted.clamp(now / FAST_STEP, now * FAST_STEP));
    }

    fn set(&mut self, wanted: u64) {
        let rows = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.rows = rows.clamp(self.policy.min_rows, self.policy.max_rows);
    }
}

/// A chunk with less than half of its rows says that the size is not too large. It doesn't say that it is too small: a
/// filter may let everything through from the next key on.
fn is_full(sample: Sample) -> bool {
    u64::from(sample.rows) * 2 >= u64::from(sample.rows_asked)
}

/// The median of the last samples, if all of them are far below or all far above the target.
fn far_off(times_us: &[u64], full: &[bool], target_us: u64) -> Option<u64> {
    let from = times_us.len().checked_sub(FAR_OFF_SAMPLES)?;
    let mut last = times_us.get(from..)?.to_vec();
    last.sort_unstable();
    let may_grow = full.get(from..)?.iter().all(|full| *full);
    let far_below = may_grow && last.iter().all(|us| us.saturating_mul(FAR_BELOW) < target_us);
    let far_above = last.iter().all(|us| *us > target_us.saturating_mul(FAR_ABOVE));
    (far_below || far_above).then(|| last.get(FAR_OFF_SAMPLES / 2).copied())?
}

/// `a * b / c` without overflow in between.
fn times(a: u64, b: u64, c: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) / u128::from(c.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    const TARGET_US: u64 = 100_000;

    fn sizer() -> Sizer {
        Sizer::new(Policy::with_target_us(TARGET_US))
    }

    fn full(rows: u32, took_us: u64) -> Sample {
        Sample { rows_asked: rows, rows, took_us, contended: false }
    }

    /// Copies chunks at this cost of a row until five sizes in a row are within half of the ideal one.
    fn chunks_until_settled(sizer: &mut Sizer, row_ns: u64, mut noise: impl FnMut() -> u64) -> u32 {
        let ideal = (TARGET_US * 1_000 / row_ns).clamp(u64::from(MIN_ROWS), u64::from(MAX_ROWS));
        let mut in_a_row = 0;
        for chunk in 0..200 {
            let rows = u64::from(sizer.rows());
            in_a_row = if (ideal / 2..=ideal * 3 / 2).contains(&rows) { in_a_row + 1 } else { 0 };
            if in_a_row == 5 {
                return chunk - 4;
            }
            let took_us = rows * row_ns / 1_000 * noise() / 100;
            sizer.sample(full(sizer.rows(), took_us));
        }
        200
    }

    /// Numbers around 100 from a linear congruential generator (Knuth's MMIX constants): 70 to 130.
    fn noise(mut seed: u64) -> impl FnMut() -> u64 {
        move || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            70 + (seed >> 33) % 61
        }
    }

    #[test]
    fn the_first_chunk_is_larger_where_chunks_may_take_longer() {
        for (target_us, rows) in
            [(50_000, 200), (199_999, 200), (500_000, 1_000), (5_000_000, 2_000), (u64::MAX, 2_000)]
        {
            assert_eq!(Sizer::new(Policy::with_target_us(target_us)).rows(), rows, "{target_us}");
        }
    }

    #[test]
    fn a_cold_start_settles_within_a_few_chunks_at_any_cost() {
        for (row_us, chunks) in [(1, 6), (5, 5), (20, 4), (100, 3), (1_000, 1), (5_000, 2)] {
            let taken = chunks_until_settled(&mut sizer(), row_us * 1_000, || 100);
            assert!(taken <= chunks, "{row_us} us a row: {taken} chunks");
        }
    }

    #[test]
    fn a_change_of_cost_is_followed() {
        // From, to (in ns a row), and how many chunks that may take.
        let cases = [
            ("10x slower", 20_000, 200_000, 4),
            ("4x slower", 20_000, 80_000, 6),
            ("10x faster", 100_000, 10_000, 6),
            ("4x faster", 100_000, 25_000, 6),
        ];
        for (name, from, to, chunks) in cases {
            for seed in 0..50 {
                let mut sizer = sizer();
                let mut noise = noise(seed);
                chunks_until_settled(&mut sizer, from, &mut noise);
                for _ in 0..30 {
                    let took_us = u64::from(sizer.rows()) * from / 1_000 * noise() / 100;
                    sizer.sample(full(sizer.rows(), took_us));
                }
                let taken = chunks_until_settled(&mut sizer, to, &mut noise);
                assert!(taken <= chunks, "{name}, seed {seed}: {taken} chunks");
            }
        }
    }

    /// Factors in hundredths, lognormal: how times of a database vary (the polar form of Box and Muller).
    fn lognormal(sigma: f64, seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
        };
        move || {
            let normal = loop {
                let (u, v) = (uniform(), uniform());
                let s = u * u + v * v;
                if s > 0.0 && s < 1.0 {
                    break u * (-2.0 * s.ln() / s).sqrt();
                }
            };
            // A factor between a few hundredths and some thousands.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let factor = ((normal * sigma).exp() * 100.0).round().clamp(1.0, 10_000.0) as u64;
            factor
        }
    }

    #[test]
    fn lognormal_noise_neither_keeps_it_from_settling_nor_drives_it() {
        let mut all_us = Vec::new();
        let (mut cold, mut slower) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            let mut sizer = sizer();
            let mut quiet = lognormal(0.25, seed);
            cold.push(chunks_until_settled(&mut sizer, 20_000, &mut quiet));
            slower.push(chunks_until_settled(&mut sizer, 200_000, &mut quiet));
            let mut noise = lognormal(0.4, seed);
            for _ in 0..200 {
                let took_us = u64::from(sizer.rows()) * 200 * noise() / 100;
                all_us.push(took_us);
                sizer.sample(full(sizer.rows(), took_us));
            }
        }
        for (name, mut chunks, most) in [("cold", cold, 8), ("10x slower", slower, 8)] {
            chunks.sort_unstable();
            assert!(chunks[190] <= most, "{name}: 95 % settle within {} chunks", chunks[190]);
        }
        all_us.sort_unstable();
        let at = |percent: usize| all_us[all_us.len() * percent / 100];
        let (p50, p99) = (at(50), at(99));
        assert!((TARGET_US / 3..TARGET_US * 11 / 10).contains(&p50), "p50 {p50}");
        assert!(p99 < TARGET_US * 5 / 2, "p99 {p99}");
    }

    #[test]
    fn chunks_that_their_bytes_cut_short_are_no_word_on_how_many_small_rows_fit() {
        let mut sizer = sizer();
        for _ in 0..10 {
            sizer.sample(full(sizer.rows(), u64::from(sizer.rows()) * 10));
        }
        let before = sizer.rows();
        assert!(before > 5_000, "{before}");
        // Sixteen rows of a mebibyte each, in about the time that a chunk should take.
        for _ in 0..40 {
            let rows_asked = sizer.rows();
            sizer.sample(Sample { rows_asked, rows: 16, took_us: TARGET_US, contended: false });
        }
        assert_eq!(sizer.rows(), before);
    }

    #[test]
    fn noise_alone_keeps_the_time_near_its_target() {
        for seed in 0..50 {
            let mut sizer = sizer();
            let mut noise = noise(seed);
            chunks_until_settled(&mut sizer, 50_000, &mut noise);
            for chunk in 0..500 {
                let took_us = u64::from(sizer.rows()) * 50 * noise() / 100;
                assert!(took_us < TARGET_US * 2, "seed {seed}, chunk {chunk}: {took_us} us");
                assert!(took_us > TARGET_US / 4, "seed {seed}, chunk {chunk}: {took_us} us");
                sizer.sample(full(sizer.rows(), took_us));
            }
        }
    }

    #[test]
    fn a_chunk_far_too_slow_makes_the_very_next_one_smaller() {
        // (took, next size of 200): at most a tenth, and no less than the target asks.
        for (took_us, rows) in [(500_001, 39), (1_000_000, 20), (60_000_000, 20)] {
            let mut sizer = sizer();
            sizer.sample(full(200, took_us));
            assert_eq!(sizer.rows(), rows, "after {took_us} us");
        }
    }

    #[test]
    fn one_step_is_at_most_fourfold_and_steady_growth_at_most_half() {
        let mut sizer = sizer();
        sizer.sample(full(200, 1));
        assert_eq!(sizer.rows(), 800);
        let mut sizer = self::sizer();
        for _ in 0..FAST_AT_START {
            let rows = sizer.rows();
            sizer.sample(full(rows, TARGET_US));
        }
        let before = sizer.rows();
        for _ in 0..STEADY_SAMPLES {
            // Not far off, but with room.
            sizer.sample(full(before, TARGET_US * 2 / 5));
        }
        assert_eq!(sizer.rows(), before * 3 / 2);
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let odd = [
            ("another size", Sample { rows_asked: 199, rows: 199, took_us: 1, contended: false }),
            ("contended", Sample { rows_asked: 200, rows: 200, took_us: 1, contended: true }),
            (
                "contended and slow",
                Sample { rows_asked: 200, rows: 200, took_us: 9_000_000, contended: true },
            ),
        ];
        for (name, sample) in odd {
            let mut sizer = sizer();
            for _ in 0..30 {
                sizer.sample(sample);
            }
            assert_eq!(sizer.rows(), 200, "{name}");
        }
    }

    #[test]
    fn empty_chunks_grow_slowly_and_full_ones_behind_them_are_met_in_time() {
        let mut sizer = sizer();
        let empty = |rows| Sample { rows_asked: rows, rows: 0, took_us: 50, contended: false };
        for _ in 0..FAST_AT_START {
            sizer.sample(empty(200));
        }
        assert_eq!(sizer.rows(), 200);
        for _ in 0..STEADY_SAMPLES {
            sizer.sample(empty(200));
        }
        assert_eq!(sizer.rows(), 300);
    }

    #[test]
    fn sparse_chunks_neither_shrink_nor_leap() {
        let mut sizer = sizer();
        for _ in 0..40 {
            let rows_asked = sizer.rows();
            sizer.sample(Sample { rows_asked, rows: 1, took_us: 400, contended: false });
        }
        // Three full steady windows of growth by half at most.
        assert_eq!(sizer.rows(), 200 * 27 / 8);
    }

    #[test]
    fn the_size_stays_within_its_bounds_whatever_comes() {
        let policies = [
            Policy { target_us: TARGET_US, min_rows: 10, max_rows: 1_000, start_rows: 5_000 },
            Policy { target_us: 0, min_rows: 0, max_rows: 0, start_rows: 0 },
            Policy { target_us: u64::MAX, min_rows: 7, max_rows: 3, start_rows: 1 },
            Policy { target_us: 1, min_rows: 1, max_rows: u32::MAX, start_rows: u32::MAX },
        ];
        for policy in policies {
            for took_us in [0, 1, 999, 200_000, 20_000_000, u64::MAX] {
                let mut sizer = Sizer::new(policy);
                let (min, max) =
                    (policy.min_rows.max(1), policy.max_rows.max(policy.min_rows).max(1));
                for _ in 0..60 {
                    assert!((min..=max).contains(&sizer.rows()), "{policy:?} {took_us}");
                    sizer.sample(full(sizer.rows(), took_us));
                }
            }
        }
    }

    #[test]
    fn another_target_counts_at_once_and_the_same_changes_nothing() {
        let mut sizer = Sizer::new(Policy { start_rows: 1_000, ..Policy::with_target_us(100_000) });
        sizer.set_target_us(100_000);
        assert_eq!(sizer.rows(), 1_000);
        sizer.set_target_us(25_000);
        assert_eq!(sizer.rows(), 250);
        sizer.set_target_us(50_000);
        assert_eq!(sizer.rows(), 500);
        sizer.set_target_us(0);
        assert_eq!(sizer.rows(), MIN_ROWS);
    }
}
