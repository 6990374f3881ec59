//! Limits that end a command by themselves.

use std::time::{Duration, Instant};

/// When a command is ended though nobody asks for it. No limits by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// How long it may run, and what it leaves may hold its output.
    pub timeout: Option<Duration>,
    /// How long it may go without output and without input. Time in which nobody takes its output does not count.
    pub idle: Option<Duration>,
    /// How many bytes it may write to both its streams or its terminal. More is not kept.
    pub output_bytes: Option<u64>,
    /// How long it may go on after SIGTERM once it has met one; 0 kills at once.
    pub grace: Duration,
}

/// Which limit has ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMet {
    /// [`RunLimits::timeout`]
    Timeout,
    /// [`RunLimits::idle`]
    Idle,
    /// [`RunLimits::output_bytes`]
    Output,
}

/// Where a command is within its limits.
pub(super) struct Watch {
    limits: RunLimits,
    started: Instant,
    /// When there was output last, or nobody to take it.
    active: Instant,
    /// Bytes that it may yet write.
    output_left: u64,
    is_met: bool,
}

impl Watch {
    /// From `now` on, if there are any limits.
    pub(super) fn new(limits: RunLimits, now: Instant) -> Option<Watch> {
        let grace = limits.grace;
        (limits
            != RunLimits {
                grace,
                ..RunLimits::default()
            })
        .then_some(Watch {
            limits,
            started: now,
            active: now,
            output_left: limits.output_bytes.unwrap_or(u64::MAX),
            is_met: false,
        })
    }

    /// How long it may go on without limits.
    pub(super) fn grace(&self) -> Duration {
        self.limits.grace
    }

    /// It was active.
    pub(super) fn touch(&mut self, now: Instant) {
        self.active = now;
    }

    /// It has written so many bytes; returns how many are to be kept, and the limit if it is met, once.
    pub(super) fn count(&mut self, len: usize) -> (usize, Option<LimitMet>) {
        let kept = self.output_left.min(len as u64);
        self.output_left -= kept;
        let is_met = kept < len as u64 && !self.is_met;
        self.is_met |= is_met;
        (kept as usize, is_met.then_some(LimitMet::Output))
    }

    /// Which other limit is met, once; or how long it is until that has to be asked again. `input` is when there was input
    /// last.
    pub(super) fn check(&mut self, now: Instant, input: Option<Instant>) -> Result<Option<Duration>, LimitMet> {
        if self.is_met {
            return Ok(None);
        }
        let active = input.map_or(self.active, |input| input.max(self.active));
        let left = |since: Instant, limit: Option<Duration>| {
            limit.map(|limit| limit.saturating_sub(now.saturating_duration_since(since)))
        };
        let (timeout, idle) = (left(self.started, self.limits.timeout), left(active, self.limits.idle));
        let met = if timeout == Some(Duration::ZERO) {
            LimitMet::Timeout
        } else if idle == Some(Duration::ZERO) {
            LimitMet::Idle
        } else {
            return Ok(timeout.into_iter().chain(idle).min());
        };
        self.is_met = true;
        Err(met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_limit_is_met_once_and_in_its_time() {
        let start = Instant::now();
        assert!(Watch::new(RunLimits::default(), start).is_none());
        let limits = RunLimits {
            timeout: Some(10 * SECOND),
            idle: Some(3 * SECOND),
            output_bytes: Some(5),
            grace: SECOND,
        };
        let watch = || Watch::new(limits, start).unwrap();
        let mut idle = watch();
        assert_eq!(idle.check(start, None), Ok(Some(3 * SECOND)));
        idle.touch(start + SECOND);
        assert_eq!(idle.check(start + 3 * SECOND, None), Ok(Some(SECOND)));
        assert_eq!(
            idle.check(start + 4 * SECOND, Some(start + 2 * SECOND)),
            Ok(Some(SECOND))
        );
        assert_eq!(idle.check(start + 4 * SECOND, None), Err(LimitMet::Idle));
        assert_eq!(idle.check(start + 40 * SECOND, None), Ok(None));
        let mut late = watch();
        late.touch(start + 9 * SECOND);
        assert_eq!(late.check(start + 9 * SECOND, None), Ok(Some(SECOND)));
        assert_eq!(late.check(start + 10 * SECOND, None), Err(LimitMet::Timeout));
        let mut loud = watch();
        assert_eq!((loud.count(3), loud.count(2)), ((3, None), (2, None)));
        assert_eq!(loud.check(start, None), Ok(Some(3 * SECOND)));
        assert_eq!(loud.count(4), (0, Some(LimitMet::Output)));
        assert_eq!(loud.count(1), (0, None));
        assert_eq!(loud.check(start + 10 * SECOND, None), Ok(None));
    }

    #[test]
    fn a_limit_beyond_all_time_is_none() {
        let limits = RunLimits {
            timeout: Some(Duration::MAX),
            ..RunLimits::default()
        };
        let now = Instant::now();
        assert!(Watch::new(limits, now).unwrap().check(now + SECOND, None).is_ok());
    }
}
