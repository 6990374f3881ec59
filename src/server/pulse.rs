//! Whether the loops go round without which a server is none: accepting clients, and doing what is due.

use super::Server;
use super::janitor::Janitor;
use nix::poll::PollTimeout;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Turns true whenever a loop goes round.
pub(super) type Beat = Arc<AtomicBool>;

/// The beats of all loops.
#[derive(Default)]
pub(super) struct Pulse {
    /// How often each loop is to go round at least, in milliseconds; 0 if nobody wants to know.
    period: AtomicU64,
    beats: Mutex<Vec<Beat>>,
}

impl Pulse {
    /// The beat of a loop that is to go round from now on, for good.
    pub(super) fn beat(&self) -> Beat {
        let beat = Beat::new(AtomicBool::new(true));
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.push(beat.clone());
        beat
    }

    /// How long such a loop may wait.
    pub(super) fn timeout(&self) -> PollTimeout {
        match self.period.load(Ordering::Relaxed) {
            0 => PollTimeout::NONE,
            period => PollTimeout::try_from(period).unwrap_or(PollTimeout::MAX),
        }
    }
}

impl Server {
    /// Has the loops go round at least once in each `period`, though there be nothing to do. To be called before a
    /// listener serves.
    pub fn watch(&self, period: Duration) {
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        self.pulse.period.store(millis.max(1), Ordering::Relaxed);
        beat_again(self.janitor.clone(), period, self.pulse.beat());
    }

    /// Whether all loops have gone round since this was found to be so last.
    pub fn is_alive(&self) -> bool {
        let beats = self.pulse.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alive = beats.iter().all(|beat| beat.load(Ordering::Relaxed));
        if is_alive {
            beats.iter().for_each(|beat| beat.store(false, Ordering::Relaxed));
        }
        is_alive
    }
}

fn beat_again(janitor: Janitor, period: Duration, beat: Beat) {
    let next = janitor.clone();
    janitor.after(period, move || {
        beat.store(true, Ordering::Relaxed);
        beat_again(next, period, beat);
    });
}
