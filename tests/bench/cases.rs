//! What is measured. Each case has a file's worth of neighbours that are measured alike.

mod files;
mod load;
mod processes;
mod scale;
mod volume;

use crate::Result;
use crate::results::Values;

/// One measurement.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) turns: Turns,
    /// Whether it has a meaning for connections that a server listens for, only.
    pub(crate) needs_websocket: bool,
    pub(crate) run: fn(&[String], &mut Values) -> Result<()>,
}

/// How the servers are measured.
#[derive(Clone, Copy)]
pub(crate) enum Turns {
    /// One after the other, in each round.
    Each,
    /// One after the other, once: what takes long, or does not differ from one time to the next.
    Once,
    /// All at one time, once: memory, which does not depend on who else is busy.
    Together,
}

/// All of them, in the order of the table.
pub(crate) const CASES: &[Case] = &[
    case("start", Turns::Each, processes::start),
    case("idle", Turns::Each, processes::idle),
    case("true", Turns::Each, processes::run_true),
    case("spawn", Turns::Each, processes::spawn),
    case("echo", Turns::Each, processes::echo),
    case("poll", Turns::Each, processes::poll),
    case("output", Turns::Each, volume::output),
    case("lines", Turns::Each, volume::lines),
    case("writes", Turns::Each, volume::writes),
    case("terminal", Turns::Each, volume::terminal),
    case("fanout", Turns::Each, volume::fanout),
    case("replay", Turns::Each, volume::replay),
    case("slow", Turns::Once, volume::slow_reader),
    case("metadata", Turns::Each, files::metadata),
    case("read", Turns::Each, files::read),
    case("write", Turns::Each, files::write),
    case("load", Turns::Each, load::load),
    case("curve", Turns::Each, scale::curve),
    case("sleepers", Turns::Once, scale::sleepers),
    Case {
        needs_websocket: true,
        ..case("connections", Turns::Once, scale::connections)
    },
    case("ended", Turns::Together, scale::ended),
];

const fn case(name: &'static str, turns: Turns, run: fn(&[String], &mut Values) -> Result<()>) -> Case {
    Case {
        name,
        turns,
        needs_websocket: false,
        run,
    }
}

/// The value that `share` of all (0 to 1) are at most, the next higher one that there is.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}
