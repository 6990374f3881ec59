//! Sessions: processes that outlive the connection they were started on.

use super::Server;
use super::janitor::Janitor;
use super::outbox::Outbox;
use crate::metrics::{self, Count};
use crate::process::{Audience, Kin, Process};
use crate::protocol::error::RpcError;
use crate::sys::{allocator, random};
use crate::transport::auth::Identity;
use log::info;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How soon it is tried again to forget processes that were not told all, at the soonest.
const MIN_FORGET_AGAIN: Duration = Duration::from_millis(100);

/// How long a client must say nothing to be taken to have asked for all it wants to know.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// The processes of one client, under the names it gave them.
pub struct Session {
    id: Box<str>,
    /// Of all its commands.
    kin: Kin,
    /// Who has made it, and may resume it.
    identity: Identity,
    /// Processes that are being started.
    starting: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    processes: HashSet<Named>,
    /// Those whose names are free for others, though they are not forgotten yet.
    nameless: Vec<Arc<Process>>,
    /// The ended ones, the one that ended first in front, and when each is to be forgotten, if ever.
    ended: VecDeque<(Option<Instant>, Arc<Process>)>,
    /// The janitor will come for those of them that are due.
    is_janitor_due: bool,
    attached: Option<Arc<Outbox>>,
    /// Counts the times a connection was lost, so that an old deadline does not end a resumed session.
    detachments: u64,
    is_over: bool,
    /// A process had its last event while there was no connection.
    has_ended_unheard: bool,
}

/// A process, known by its name.
struct Named(Arc<Process>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Named) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Named {}

impl Session {
    /// What it is resumed with.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// By which all that its commands have left is found.
    pub(super) fn kin(&self) -> Kin {
        self.kin
    }

    /// The process of that name.
    pub(super) fn process(&self, id: &str) -> Option<Arc<Process>> {
        Some(self.inner().processes.get(id)?.0.clone())
    }

    /// Whether there is a process whose start is not settled.
    pub(super) fn is_starting_something(&self) -> bool {
        self.starting.load(Ordering::Acquire) > 0
    }

    /// All processes.
    pub(super) fn processes(&self) -> Vec<Arc<Process>> {
        self.inner().named().cloned().collect()
    }

    /// Has all processes give up half of what they retain.
    pub(super) fn halve_processes(&self) {
        let processes: Vec<_> = self.inner().all().cloned().collect();
        for process in processes {
            process.halve();
        }
    }

    /// Adds the process that `create` returns, told to which connection it belongs. Its start is under way from now on
    /// until [`start_settled`](Session::start_settled). One that had the name before says no more: nobody could tell
    /// the two apart.
    pub(super) fn add_process(
        &self,
        id: &str,
        limit: usize,
        create: impl FnOnce(Option<Arc<Outbox>>) -> Arc<Process>,
    ) -> Result<Arc<Process>, RpcError> {
        let mut inner = self.inner();
        if inner.is_over {
            return Err(RpcError::invalid_request(format!("session {} has ended", self.id)));
        }
        if inner.processes.contains(id) {
            return Err(RpcError::invalid_request(format!("process {id} already exists")));
        }
        if inner.processes.len() + inner.nameless.len() >= limit {
            // What has ended gives way to what is to start.
            let oldest = inner.ended.iter().position(|(_, process)| process.is_told());
            let Some((_, oldest)) = oldest.and_then(|oldest| inner.ended.remove(oldest)) else {
                metrics::limit_met("max-processes");
                return Err(RpcError::internal(format!(
                    "too many processes: a session may have {limit}"
                )));
            };
            inner.remove(&oldest);
        }
        let outbox = inner.attached.clone();
        if let Some(outbox) = &outbox {
            let namesakes = inner.nameless.iter().filter(|process| process.id() == id);
            namesakes.for_each(|process| process.detach(outbox.id()));
        }
        let process = create(outbox);
        self.starting.fetch_add(1, Ordering::AcqRel);
        inner.processes.insert(Named(process.clone()));
        Ok(process)
    }

    /// All that waited for a start has had its turn.
    pub(super) fn start_settled(&self) {
        self.starting.fetch_sub(1, Ordering::AcqRel);
    }

    /// The start of a process has failed: there is no such process.
    pub(super) fn remove_process(&self, id: &str) {
        self.inner().processes.remove(id);
    }

    /// Frees the name of a process. It goes on telling its events and ends with the session, but cannot be asked for
    /// anything any more.
    pub(super) fn release_name(&self, process: &Arc<Process>) {
        let mut inner = self.inner();
        if inner.is_named(process) {
            inner.processes.remove(process.id());
            inner.nameless.push(process.clone());
            process.keep_nothing();
        }
    }

    /// A process has had its last event: it can still be read for some time, if it has its name.
    pub(super) fn process_ended(self: &Arc<Session>, process: &Arc<Process>, server: &Server) {
        let mut inner = self.inner();
        if !inner.is_named(process) && !inner.nameless.iter().any(|p| Arc::ptr_eq(p, process)) {
            return;
        }
        let keep = server.config.retain_ended;
        let due = Instant::now().checked_add(keep);
        inner.ended.push_back((due, process.clone()));
        let is_first = due.is_some() && !std::mem::replace(&mut inner.is_janitor_due, true);
        inner.has_ended_unheard |= inner.attached.is_none();
        drop(inner);
        server.totals.ended(process);
        if is_first {
            self.forget_after(keep, keep, server.janitor.clone());
        }
    }

    fn forget_after(self: &Arc<Session>, delay: Duration, keep: Duration, janitor: Janitor) {
        let (session, again) = (Arc::downgrade(self), janitor.clone());
        janitor.after(delay, move || {
            let Some(session) = session.upgrade() else { return };
            if let Some(delay) = session.forget_due(keep) {
                session.forget_after(delay, keep, again);
            }
        });
    }

    /// Forgets the processes that are due, but for those of which a client that is slow, or acknowledges late, was not
    /// told everything: they are kept that long again. Returns when to come again.
    fn forget_due(&self, keep: Duration) -> Option<Duration> {
        let now = Instant::now();
        let mut inner = self.inner();
        let (mut forgotten, mut kept) = (Vec::new(), 0);
        while let Some((Some(due), process)) = inner.ended.get(kept)
            && *due <= now
        {
            if process.is_told() {
                forgotten.extend(inner.ended.remove(kept));
            } else {
                kept += 1;
            }
        }
        for (_, process) in &forgotten {
            inner.remove(process);
        }
        let again = (kept > 0).then(|| keep.max(MIN_FORGET_AGAIN));
        let other = inner.ended.get(kept).and_then(|(due, _)| *due);
        let other = other.map(|due| due.saturating_duration_since(now));
        let next = again.into_iter().chain(other).min();
        inner.is_janitor_due = next.is_some();
        let is_last = !forgotten.is_empty() && inner.processes.is_empty();
        if is_last {
            inner.processes.shrink_to_fit();
            inner.nameless.shrink_to_fit();
            inner.ended.shrink_to_fit();
        }
        drop(inner);
        drop(forgotten);
        if is_last {
            allocator::give_back();
        }
        next
    }

    /// Whether its client has been told all there is. One that has come back for what it has missed asks for that, and is
    /// done when it has asked for nothing for a while.
    pub(super) fn is_told(&self) -> bool {
        let inner = self.inner();
        let has_caught_up = match &inner.attached {
            Some(outbox) => !inner.has_ended_unheard || outbox.silence() >= CATCHING_UP,
            None => !inner.has_ended_unheard,
        };
        let processes: Vec<_> = inner.all().cloned().collect();
        drop(inner);
        has_caught_up && processes.iter().all(|process| process.is_told())
    }

    /// The connection is there and knows the session: it is told of all events from now on.
    pub(super) fn attach_processes(&self, outbox: &Arc<Outbox>) {
        for process in self.processes() {
            process.attach(outbox.clone());
        }
    }

    /// The connection of that outbox is gone. The session lives on for a while, or ends now.
    pub(super) fn detach(self: &Arc<Session>, outbox: &Outbox, server: &Arc<Server>, ttl: Duration) {
        let mut inner = self.inner();
        if inner
            .attached
            .as_ref()
            .is_none_or(|attached| attached.id() != outbox.id())
        {
            return;
        }
        inner.attached = None;
        inner.detachments += 1;
        let detachments = inner.detachments;
        let processes: Vec<_> = inner.all().cloned().collect();
        drop(inner);
        for process in processes {
            process.detach(outbox.id());
        }
        if ttl.is_zero() {
            return server.end_session(self, None);
        }
        info!(conn = outbox.id(), session = &*self.id; "session {} is detached and kept for {ttl:?}", self.id);
        let (session, owner) = (Arc::downgrade(self), Arc::downgrade(server));
        server.janitor.after(ttl, move || {
            let (Some(session), Some(server)) = (session.upgrade(), owner.upgrade()) else {
                return;
            };
            server.end_session(&session, Some(detachments));
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn named(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.processes.iter().map(|named| &named.0)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.named().chain(&self.nameless)
    }

    fn is_named(&self, process: &Arc<Process>) -> bool {
        self.processes
            .get(process.id())
            .is_some_and(|named| Arc::ptr_eq(&named.0, process))
    }

    fn remove(&mut self, process: &Arc<Process>) {
        if self.is_named(process) {
            self.processes.remove(process.id());
        } else {
            self.nameless.retain(|p| !Arc::ptr_eq(p, process));
        }
    }
}

/// The sessions of a server.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Box<str>, Arc<Session>>>);

impl Sessions {
    /// Opens a session for a connection, and for nobody but the one who is at its other end.
    pub(super) fn open(
        &self,
        outbox: &Arc<Outbox>,
        identity: Identity,
        limit: usize,
    ) -> Result<Arc<Session>, RpcError> {
        let id = random::uuid().map_err(|e| RpcError::internal(format!("failed to make a session id: {e}")))?;
        let mut sessions = self.sessions();
        if sessions.len() >= limit {
            metrics::limit_met("max-sessions");
            return Err(RpcError::internal(format!(
                "too many sessions: the server has its limit of {limit}"
            )));
        }
        let inner = Inner {
            attached: Some(outbox.clone()),
            ..Inner::default()
        };
        let session = Arc::new(Session {
            id: id.into(),
            kin: Kin::group(),
            identity,
            starting: AtomicUsize::new(0),
            inner: Mutex::new(inner),
        });
        sessions.insert(session.id.clone(), session.clone());
        metrics::add(Count::Sessions, 1);
        Ok(session)
    }

    /// Attaches a connection to a session that has none, or one that receives nothing more, which is cut then. If it
    /// has another, that is returned. To anybody but who has made it, it does not exist.
    pub(super) fn resume(
        &self,
        id: &str,
        outbox: &Arc<Outbox>,
        identity: &Identity,
    ) -> Result<Arc<Session>, ResumeError> {
        let session = self.sessions().get(id).cloned().ok_or(ResumeError::Unknown)?;
        if session.identity != *identity {
            return Err(ResumeError::Unknown);
        }
        let mut inner = session.inner();
        if inner.is_over {
            return Err(ResumeError::Unknown);
        }
        if let Some(attached) = inner.attached.as_ref().filter(|attached| !attached.is_ending()) {
            return Err(ResumeError::Attached(attached.clone()));
        }
        let before = inner.attached.replace(outbox.clone());
        let processes: Vec<_> = before.iter().flat_map(|_| inner.all().cloned()).collect();
        drop(inner);
        metrics::add(Count::Resumptions, 1);
        if let Some(before) = before {
            for process in processes {
                process.detach(before.id());
            }
            before.cut();
        }
        Ok(session)
    }

    /// Takes a session out and returns its processes; nothing can be started in it any more. With `detachments`, only
    /// if it has been without a connection since the time it was lost that often.
    pub(super) fn close(&self, session: &Session, detachments: Option<u64>) -> Option<Vec<Arc<Process>>> {
        let mut sessions = self.sessions();
        let mut inner = session.inner();
        if detachments.is_some_and(|n| inner.attached.is_some() || inner.detachments != n) {
            return None;
        }
        sessions.remove(&session.id);
        inner.is_over = true;
        inner.ended = VecDeque::new();
        let mut processes = std::mem::take(&mut inner.nameless);
        processes.extend(std::mem::take(&mut inner.processes).into_iter().map(|named| named.0));
        Some(processes)
    }

    /// All sessions.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions().values().cloned().collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a session could not be resumed.
pub(super) enum ResumeError {
    /// There is none of that name, or none any more.
    Unknown,
    /// Another connection has it.
    Attached(Arc<Outbox>),
}
