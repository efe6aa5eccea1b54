//! Virtual time.

use std::fmt;

/// A point on the caller's clock, in nanoseconds since a zero of the caller's choice. A plain number, so that a test
/// can be at any time it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    pub const ZERO: Self = Self(0);

    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    pub const fn from_micros(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// This point and `ns` nanoseconds more; the end of time at the most.
    pub const fn after_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// This point and `us` microseconds more; the end of time at the most.
    pub const fn after_us(self, us: u64) -> Self {
        self.after_ns(us.saturating_mul(1_000))
    }

    /// Nanoseconds from `earlier` to this point; 0 if `earlier` is later.
    pub const fn ns_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    /// Milliseconds, with as many decimals as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{ms}ms");
        }
        let digits = format!("{rest:06}");
        write!(f, "{ms}.{}ms", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn time_saturates_and_prints_in_milliseconds() {
        assert_eq!(Time(u64::MAX).after_us(1), Time(u64::MAX));
        assert_eq!(Time(1).ns_since(Time(2)), 0);
        assert_eq!(Time::from_millis(3).to_string(), "3ms");
        assert_eq!(Time(1_500_010).to_string(), "1.50001ms");
    }
}
