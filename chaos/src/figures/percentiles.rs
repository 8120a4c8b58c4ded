use std::fmt;

/// Times in milliseconds, in order.
#[derive(Clone, Debug, Default)]
pub struct Percentiles(Vec<u64>);

impl Percentiles {
    /// Of these times.
    pub fn of(times: impl IntoIterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that so many of a thousand do not exceed; 0 if there are none.
    pub fn at(&self, per_mille: usize) -> u64 {
        let rank = (self.0.len() * per_mille).div_ceil(1_000).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// How many are at most so long.
    pub fn within(&self, longest: u64) -> usize {
        self.0.partition_point(|time| *time <= longest)
    }
}

/// The cells of a table: count, median, 90 %, 99 %, longest.
impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} | {} | {} | {} | {}",
            self.count(),
            self.at(500),
            self.at(900),
            self.at(990),
            self.at(1_000)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_that_enough_do_not_exceed() {
        let times = Percentiles::of((1..=200).rev());
        assert_eq!(times.to_string(), "200 | 100 | 180 | 198 | 200");
        assert_eq!((times.within(50), times.within(500)), (50, 200));
        assert_eq!(Percentiles::default().at(990), 0);
    }
}
