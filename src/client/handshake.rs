//! The first calls on a connection.

use super::connection::Connection;
use super::error::ExecServerError;
use super::json_object::JsonObject;
use super::outgoing::Outgoing;
use super::pending::{CallError, Purpose};
use super::process_calls::fields;
use super::session::Session;
use std::sync::Arc;
use std::time::Duration;

/// Opens a session or takes one up again, within `limit`.
pub(super) fn initialize(
    session: &Session,
    connection: &Arc<Connection>,
    resume: Option<&str>,
    limit: Duration,
) -> Result<(), CallError> {
    let mut params = JsonObject::new().text("clientName", &session.options.client_name);
    if let Some(id) = resume {
        params = params.text("resumeSessionId", id);
    }
    let message = Outgoing {
        id: None,
        method: "initialize",
        params: params.flag("extendedSignals", true).done(),
        bulk: None,
    };
    let answer = connection
        .call(Purpose::Regular, Some(limit), message)
        .map_err(|e| match e {
            CallError::TimedOut(_) => CallError::TimedOut(ExecServerError::InitializeTimedOut { timeout: limit }),
            other => other,
        })?;
    let fields = fields(&answer)?;
    let opened: String = fields.required("sessionId").map_err(ExecServerError::from)?;
    let expected = session.id.get_or_init(|| opened.clone());
    if *expected != opened {
        return Err(CallError::Failed(ExecServerError::Protocol(format!(
            "exec-server initialized an unexpected session {}",
            opened
        ))));
    }
    // Servers that are old do not say it, and what can't be read is not needed.
    if let Ok(said) = fields.required("environmentInfo") {
        let _ = session.environment.set(said);
    }
    connection.send(&Outgoing {
        id: None,
        method: "initialized",
        params: Vec::new(),
        bulk: None,
    })
}
