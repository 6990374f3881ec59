//! When the calls of `fs/*` methods are carried out.

use super::Server;
use super::file_methods::{Call, Method, method, touches};
use super::missing_watch::MissingWatches;
use super::outbox::{Outbox, Responder};
use super::params::Params;
use super::path_order::PathOrder;
use super::worker_pool::{Job, WorkerPool};
use crate::files::{FileHandles, LocalDevices, Patience, Replaced};
use crate::metrics;
use crate::protocol::error::RpcError;
use crate::sys::defect;
use crate::transport::large_memory::LargeMemory;
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The file calls of one connection: done by the server's workers, in order where they touch the same path.
pub(super) struct FileCalls {
    shared: Arc<Shared>,
    limit: usize,
}

struct Shared {
    order: Mutex<PathOrder<Work>>,
    workers: WorkerPool,
    handles: FileHandles,
    watches: MissingWatches,
    memory: LargeMemory,
    patience: Patience,
    devices: Arc<LocalDevices>,
}

/// Everything about one call but its ticket.
struct Work {
    method: &'static Method,
    params: Params,
    responder: Responder,
}

impl FileCalls {
    pub(super) fn new(server: &Server, outbox: Arc<Outbox>) -> FileCalls {
        let shared = Shared {
            order: Mutex::new(PathOrder::new()),
            workers: server.workers.clone(),
            handles: FileHandles::new(server.config.max_file_handles),
            watches: MissingWatches::new(outbox),
            memory: server.memory.clone(),
            patience: Patience::default(),
            devices: server.devices.clone(),
        };
        FileCalls {
            shared: Arc::new(shared),
            limit: server.config.max_file_calls,
        }
    }

    /// Gives up the calls that wait for somebody.
    pub(super) fn end(&self) {
        self.shared.patience.end();
    }

    /// Whether it is a method of a name that is served here.
    pub(super) fn knows(name: &str) -> bool {
        method(name).is_some()
    }

    /// Has a call carried out and answered. `permitted` says whether the connection may do that yet; wrong parameters
    /// are told first all the same.
    pub(super) fn call(&self, name: &str, params: Params, responder: Responder, permitted: Result<(), RpcError>) {
        let Some(method) = method(name) else { return };
        if permitted.is_ok()
            && !self.shared.order().is_writing()
            && let Some(result) = method.answer_at_once(&params, &self.shared.devices)
        {
            return responder.write(|out| {
                out.push(result.bytes());
                Ok(())
            });
        }
        let touches = match permitted.and_then(|()| touches(method, &params)) {
            Ok(touches) => touches,
            Err(error) => {
                let nothing = Cell::new(None);
                // Only to tell wrong parameters first: it does nothing without permission.
                let call = self.shared.as_call(&params, Err(error), &nothing);
                return method.carry_out(&call, responder);
            }
        };
        let mut order = self.shared.order();
        if order.len() >= self.limit {
            metrics::limit_met("max-file-calls");
            let error = format!(
                "too many file calls are unfinished: a connection may have {}",
                self.limit
            );
            return responder.fail(&RpcError::internal(error));
        }
        let ready = order.add(
            touches,
            Work {
                method,
                params,
                responder,
            },
        );
        drop(order);
        if let Some((ticket, work)) = ready {
            self.shared.clone().submit(ticket, work);
        }
    }
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, PathOrder<Work>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_call<'a>(
        &'a self,
        params: &'a Params,
        permitted: Result<(), RpcError>,
        replaced: &'a Cell<Option<Replaced>>,
    ) -> Call<'a> {
        Call {
            params,
            handles: &self.handles,
            watches: &self.watches,
            memory: &self.memory,
            patience: &self.patience,
            permitted,
            replaced,
            devices: &self.devices,
        }
    }

    fn submit(self: Arc<Self>, ticket: u64, work: Work) {
        let workers = self.workers.clone();
        let job: Job = Box::new(move |can_be_done| {
            let Work {
                method,
                params,
                responder,
            } = work;
            let replaced = Cell::new(None);
            // Those that wait for this one go on even if it fails in an unforeseen way.
            let finish = Finish(&self, ticket);
            match can_be_done {
                Ok(()) => {
                    defect::point("file worker", || params.as_json());
                    method.carry_out(&self.as_call(&params, Ok(()), &replaced), responder);
                }
                Err(e) => responder.fail(&RpcError::internal(format!("failed to carry out the file call: {e}"))),
            }
            // In this order: what is wanted soonest comes first, and what may take long comes last.
            drop(finish);
            drop(params);
            drop(replaced);
        });
        workers.submit(job);
    }
}

struct Finish<'a>(&'a Arc<Shared>, u64);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let ready = self.0.order().finish(self.1);
        for (ticket, work) in ready {
            self.0.clone().submit(ticket, work);
        }
    }
}
