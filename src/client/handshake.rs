//! The first calls on a connection.

use super::connection::Connection;
use super::error::ExecServerError;
use super::json_object::JsonObject;
use super::outgoing::Outgoing;
use super::pending::{CallError, Purpose};
use super::server_environment::ServerEnvironment;
use super::session::Session;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionOnly {
    session_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvironmentOnly {
    environment_info: ServerEnvironment,
}

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
    let opened: SessionOnly = serde_json::from_slice(&answer.json).map_err(ExecServerError::from)?;
    let expected = session.id.get_or_init(|| opened.session_id.clone());
    if *expected != opened.session_id {
        return Err(CallError::Failed(ExecServerError::Protocol(format!(
            "exec-server initialized an unexpected session {}",
            opened.session_id
        ))));
    }
    // Servers that are old do not say it, and what can't be read is not needed.
    if let Ok(said) = serde_json::from_slice::<EnvironmentOnly>(&answer.json) {
        let _ = session.environment.set(said.environment_info);
    }
    connection.send(&Outgoing {
        id: None,
        method: "initialized",
        params: Vec::new(),
        bulk: None,
    })
}
