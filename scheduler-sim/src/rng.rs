//! Chance, all of it from one seed.

use fastrand::Rng as Source;

/// Where every decision of a history comes from.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Source);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common.
        let mut source = Source::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mixed = source.u64(..);
        Self(Source::with_seed(mixed))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..=high.max(low))
    }

    /// A number from `low` to `high` whose magnitude is drawn first, so that small ones come often.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let bits = self.range(0, 63 - u64::from((high - low + 1).leading_zeros()));
        let most = low + ((1u64 << (bits + 1)) - 1).min(high - low);
        self.range(low, most)
    }

    /// Whether something happens that does in `permille` of a thousand cases.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.range(0, 999) < permille
    }

    /// An index below `len`, which must not be 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.usize(..len)
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    pub(crate) fn u128(&mut self) -> u128 {
        self.0.u128(..)
    }
}
