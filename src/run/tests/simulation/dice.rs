//! Chance that is the same every time: one seed, one history.

/// A cheap deterministic generator: the constants are those of Knuth's MMIX.
pub(super) struct Dice(u64);

impl Dice {
    /// The seed is stirred first: neighbours would begin alike.
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..4 {
            dice.roll(2);
        }
        dice
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// One of several, by a number.
pub(super) fn pick<T>(of: &[T], by: u64) -> Option<usize> {
    (!of.is_empty()).then(|| usize::try_from(by % of.len() as u64).unwrap())
}
