//! Which thread carries a request out.

use super::connection::{Conversation, Received, spawn};
use crossbeam_channel::{Sender, bounded};
use log::warn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Parsed messages that wait for the dispatcher. It never blocks, so this only smooths bursts.
const QUEUED_MESSAGES: usize = 128;

/// Where the reader takes what it has parsed.
///
/// A small message that finds the dispatcher idle is carried out on the reader's own thread: to wake another would take
/// longer than nearly all that the dispatcher does. Behind a large one, whose parameters take a while to decode, the
/// dispatcher has a thread of its own, and the reader goes on receiving. That thread is started with the first such
/// message. Either way messages are carried out one by one, in the order they came.
pub(super) struct Desk {
    conversation: SharedConversation,
    /// Messages that were given to the dispatcher's thread and are not carried out.
    waiting: Arc<AtomicUsize>,
    dispatcher: Option<Sender<Received>>,
}

/// None once it has ended. Only one thread at a time has anything to do with it.
type SharedConversation = Arc<Mutex<Option<Conversation>>>;

impl Desk {
    pub(super) fn new(conversation: Conversation) -> Desk {
        Desk {
            conversation: Arc::new(Mutex::new(Some(conversation))),
            waiting: Arc::default(),
            dispatcher: None,
        }
    }

    /// Has a message carried out. False if nothing more is to be received.
    pub(super) fn take(&mut self, received: Received, is_large: bool) -> bool {
        if self.waiting.load(Ordering::Acquire) > 0 || is_large {
            if self.dispatcher.is_none() {
                self.start_dispatcher();
            }
            if let Some(dispatcher) = &self.dispatcher {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                return dispatcher.send(received).is_ok();
            }
        }
        carry_out(&self.conversation, received)
    }

    fn start_dispatcher(&mut self) {
        let (queue, queued) = bounded(QUEUED_MESSAGES);
        let (conversation, waiting) = (self.conversation.clone(), self.waiting.clone());
        let started = spawn("dispatcher", move || {
            for received in &queued {
                if !carry_out(&conversation, received) {
                    break;
                }
                waiting.fetch_sub(1, Ordering::AcqRel);
            }
            drop(queued);
            end(&conversation);
        });
        match started {
            Ok(()) => self.dispatcher = Some(queue),
            Err(e) => warn!("a connection does without a dispatcher: {e}"),
        }
    }

    /// Nothing more is received: the connection ends, once all was carried out.
    pub(super) fn end(mut self) {
        let is_broken_off =
            |conversation: &mut Option<Conversation>| conversation.as_ref().is_some_and(Conversation::is_broken_off);
        // The client may have to be read from until it sees why.
        if self.dispatcher.is_none()
            && is_broken_off(&mut self.conversation.lock().unwrap_or_else(PoisonError::into_inner))
        {
            self.start_dispatcher();
        }
        // Its thread does the rest, if there is one.
        if self.dispatcher.take().is_none() {
            end(&self.conversation);
        }
    }
}

fn carry_out(conversation: &SharedConversation, received: Received) -> bool {
    let mut conversation = conversation.lock().unwrap_or_else(PoisonError::into_inner);
    conversation
        .as_mut()
        .is_some_and(|conversation| conversation.carry_out(received))
}

fn end(conversation: &SharedConversation) {
    let ended = conversation.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(conversation) = ended {
        conversation.end();
    }
}
