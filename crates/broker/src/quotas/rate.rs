//! How much of something there was lately, and how long to wait until that is within a quota: the measures of Kafka's
//! quotas.

use std::collections::VecDeque;

/// Over which time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) count: u32,
    pub(crate) size_ms: u32,
}

impl Windows {
    fn size_ms(self) -> i64 {
        i64::from(self.size_ms.max(1))
    }

    fn all_ms(self) -> i64 {
        self.size_ms() * i64::from(self.count.max(1))
    }

    fn all_seconds(self) -> f64 {
        as_f64(self.all_ms()) / 1_000.0
    }
}

#[allow(clippy::cast_precision_loss)]
fn as_f64(number: i64) -> f64 {
    number as f64
}

#[allow(clippy::cast_possible_truncation)]
fn rounded(number: f64) -> i64 {
    number.round() as i64
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    start_ms: i64,
    last_ms: i64,
    total: f64,
}

/// A rate per second over the last windows. Time in which nothing was measured yet counts as if nothing had
/// happened, so that a beginning may be a burst.
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<Sample>);

impl Rate {
    pub(super) fn record(&mut self, value: f64, windows: Windows, now_ms: i64) {
        self.forget(windows, now_ms);
        match self.0.back_mut() {
            Some(sample) if now_ms.saturating_sub(sample.start_ms) < windows.size_ms() => {
                sample.total += value;
                sample.last_ms = now_ms;
            }
            _ => self.0.push_back(Sample {
                start_ms: now_ms,
                last_ms: now_ms,
                total: value,
            }),
        }
    }

    /// Milliseconds after which the rate is the quota again; 0 where it is within.
    pub(super) fn throttle_ms(&mut self, quota: f64, windows: Windows, now_ms: i64) -> i64 {
        self.forget(windows, now_ms);
        let total: f64 = self.0.iter().map(|sample| sample.total).sum();
        let measured_ms = as_f64(self.measured_ms(windows, now_ms));
        let rate = total * 1_000.0 / measured_ms;
        if rate <= quota {
            return 0;
        }
        rounded((rate - quota) / quota * measured_ms)
    }

    fn measured_ms(&self, windows: Windows, now_ms: i64) -> i64 {
        let first_ms = self.0.front().map_or(now_ms, |sample| sample.start_ms);
        let mut elapsed_ms = now_ms.saturating_sub(first_ms).max(0);
        let full = elapsed_ms / windows.size_ms();
        let wanted = i64::from(windows.count.max(1)) - 1;
        if full < wanted {
            elapsed_ms += (wanted - full) * windows.size_ms();
        }
        if elapsed_ms == 0 {
            windows.size_ms()
        } else {
            elapsed_ms
        }
    }

    fn forget(&mut self, windows: Windows, now_ms: i64) {
        while let Some(sample) = self.0.front()
            && now_ms.saturating_sub(sample.last_ms) >= windows.all_ms()
        {
            self.0.pop_front();
        }
    }
}

/// Tokens that come back at the rate of a quota; as many as all windows bring may be kept (KIP-599).
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    filled_ms: i64,
}

impl TokenBucket {
    /// Full.
    pub(super) fn new(quota: f64, windows: Windows, now_ms: i64) -> Self {
        Self {
            tokens: quota * windows.all_seconds(),
            filled_ms: now_ms,
        }
    }

    /// Milliseconds after which there are tokens again; 0 where there are.
    pub(super) fn throttle_ms(&mut self, quota: f64, windows: Windows, now_ms: i64) -> i64 {
        let passed_ms = now_ms.saturating_sub(self.filled_ms).max(0);
        self.tokens = (self.tokens + quota * as_f64(passed_ms) / 1_000.0).min(quota * windows.all_seconds());
        self.filled_ms = now_ms;
        if self.tokens >= 0.0 {
            return 0;
        }
        rounded(-self.tokens / quota * 1_000.0)
    }

    pub(super) fn take(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows {
        count: 11,
        size_ms: 1_000,
    };

    #[test]
    fn a_beginning_may_use_what_the_windows_before_would_have_allowed() {
        let mut rate = Rate::default();
        rate.record(10_000.0, WINDOWS, 0);
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 0), 0);
        rate.record(500.0, WINDOWS, 0);
        // 10,500 over 10 seconds are 1,050 a second; half a second brings it back.
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 0), 500);
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 400), 100);
    }

    #[test]
    fn a_steady_rate_above_the_quota_waits_for_what_is_too_much() {
        let mut rate = Rate::default();
        for second in 0..20 {
            rate.record(2_000.0, WINDOWS, second * 1_000);
        }
        // Eleven samples of 2,000 in the 10 s since the oldest began.
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 19_000), 12_000);
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 19_000 + 11_000), 0);
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut rate = Rate::default();
        rate.record(20_000.0, WINDOWS, 5);
        assert!(rate.throttle_ms(1_000.0, WINDOWS, 5) > 0);
        rate.record(-20_000.0, WINDOWS, 5);
        assert_eq!(rate.throttle_ms(1_000.0, WINDOWS, 5), 0);
    }

    #[test]
    fn tokens_run_out_and_come_back_at_the_rate() {
        let mut bucket = TokenBucket::new(2.0, WINDOWS, 0);
        bucket.take(22.0);
        assert_eq!(bucket.throttle_ms(2.0, WINDOWS, 0), 0);
        bucket.take(4.0);
        assert_eq!(bucket.throttle_ms(2.0, WINDOWS, 0), 2_000);
        assert_eq!(bucket.throttle_ms(2.0, WINDOWS, 1_500), 500);
        assert_eq!(bucket.throttle_ms(2.0, WINDOWS, 1_000_000), 0);
        bucket.take(23.0);
        assert_eq!(bucket.throttle_ms(2.0, WINDOWS, 1_000_000), 500);
    }
}
