//! The flags that set limits: each is a field of [`ServerConfig`], by its name.

use super::flags::{Flag, UsageError, wrong};
use exec_server::server::ServerConfig;
use exec_server::sys::reserve;
use std::time::Duration;

/// The limits that were given, and the usual others.
pub(super) struct GivenLimits {
    config: Box<ServerConfig>,
    names: Vec<String>,
}

impl Default for GivenLimits {
    /// The usual limits for the memory that there is.
    fn default() -> GivenLimits {
        GivenLimits {
            config: Box::new(ServerConfig::within(reserve::limit())),
            names: Vec::new(),
        }
    }
}

/// Where a limit is kept, and what it is.
enum Limit<'a> {
    Number(&'a mut usize),
    Bytes(&'a mut usize),
    /// With the least that it may be.
    Time(&'a mut Duration, Duration),
}

impl GivenLimits {
    /// Takes a flag that sets a limit.
    pub(super) fn take(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        match limit(&mut self.config, flag.name) {
            None => return flag.unknown(),
            Some(Limit::Number(number)) => *number = flag.number()?,
            Some(Limit::Bytes(bytes)) => *bytes = flag.bytes()?,
            Some(Limit::Time(time, least)) => *time = flag.time(least)?,
        }
        if self.names.iter().any(|name| name == flag.name) {
            return wrong(format!("{} is given twice", flag.name));
        }
        self.names.push(flag.name.to_owned());
        Ok(())
    }

    /// All limits.
    pub(super) fn config(self) -> Result<Box<ServerConfig>, UsageError> {
        if self.config.silence_limit <= self.config.ping_interval {
            return wrong(
                "--silence-limit must be more than --ping-interval, or clients are cut off before they are pinged",
            );
        }
        Ok(self.config)
    }
}

fn limit<'a>(config: &'a mut ServerConfig, flag: &str) -> Option<Limit<'a>> {
    let number = Limit::Number;
    let bytes = Limit::Bytes;
    let time = |time| Limit::Time(time, Duration::ZERO);
    let some_time = |time| Limit::Time(time, Duration::from_millis(1));
    Some(match flag {
        "--max-connections" => number(&mut config.max_connections),
        "--max-handshakes" => number(&mut config.max_handshakes),
        "--upgrade-timeout" => some_time(&mut config.upgrade_timeout),
        "--initialize-timeout" => some_time(&mut config.initialize_timeout),
        "--ping-interval" => some_time(&mut config.ping_interval),
        "--silence-limit" => some_time(&mut config.silence_limit),
        "--probe-limit" => some_time(&mut config.probe_limit),
        "--max-sessions" => number(&mut config.max_sessions),
        "--session-ttl" => time(&mut config.session_ttl),
        "--max-message-bytes" => bytes(&mut config.max_message_bytes),
        "--max-unfinished-bytes" => bytes(&mut config.max_unfinished_bytes),
        "--max-unread-bytes" => bytes(&mut config.max_unread_bytes),
        "--max-unread-answers" => number(&mut config.max_unread_answers),
        "--max-requests" => number(&mut config.max_requests),
        "--max-long-polls" => number(&mut config.max_long_polls),
        "--max-file-calls" => number(&mut config.max_file_calls),
        "--max-file-handles" => number(&mut config.max_file_handles),
        "--max-file-workers" => number(&mut config.max_file_workers),
        "--max-processes" => number(&mut config.max_processes),
        "--max-running" => number(&mut config.max_running),
        "--retain-ended" => time(&mut config.retain_ended),
        "--retain-bytes" => bytes(&mut config.retain_bytes),
        "--retain-events" => number(&mut config.retain_events),
        "--retain-total-bytes" => bytes(&mut config.retain_total_bytes),
        "--stdin-soft-bytes" => bytes(&mut config.stdin_soft_bytes),
        "--stdin-hard-bytes" => bytes(&mut config.stdin_hard_bytes),
        "--stdin-total-bytes" => bytes(&mut config.stdin_total_bytes),
        "--drain-limit" => time(&mut config.drain_limit),
        "--shutdown-limit" => time(&mut config.shutdown_limit),
        _ => return None,
    })
}
