//! A connection's messages to a client within this program.

use super::answer_text::AnswerText;
use super::encode::{self, Batch};
use super::outbox::Wire;
use super::writer::Sink;
use crate::process::{Event, Process, Replay};
use crate::protocol::message::RequestId;
use crate::transport::Framing;
use crate::transport::memory::ToClient;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use std::io;
use tungstenite::Bytes;

/// Sends each message by itself, output without a copy, and waits while the client has taken too few.
pub(super) struct ChannelSink {
    client: Sender<ToClient>,
    /// Has something once the connection is cut.
    cut: Receiver<()>,
    encoder: Batch,
}

impl ChannelSink {
    pub(super) fn new(client: Sender<ToClient>, cut: Receiver<()>) -> ChannelSink {
        ChannelSink {
            client,
            cut,
            encoder: Batch::new(Framing::Alone),
        }
    }

    fn send(&self, message: ToClient) -> io::Result<()> {
        self.check_cut()?;
        match self.client.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(TrySendError::Full(message)) => select! {
                send(self.client, message) -> sent => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
                recv(self.cut) -> _ => Err(io::ErrorKind::ConnectionAborted.into()),
            },
        }
    }

    fn send_encoded(&mut self) -> io::Result<()> {
        let message = self.encoder.take();
        self.send(ToClient::Message(message.into()))
    }

    fn check_cut(&self) -> io::Result<()> {
        if self.cut.is_empty() {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

impl Sink for ChannelSink {
    fn message(&mut self, message: AnswerText) -> io::Result<()> {
        self.send(match message {
            AnswerText::Raw { text, bulk } => ToClient::Answer {
                text: text.into(),
                bulk: vec![bulk],
            },
            text => ToClient::Message(text.into_bytes()),
        })
    }

    fn frames(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn replay(&mut self, id: &RequestId, replay: Replay, raw: bool) -> io::Result<()> {
        encode::replay(&mut self.encoder, id, &replay, raw, &mut |_| Ok(()))?;
        if !raw {
            return self.send_encoded();
        }
        let text = self.encoder.take().into();
        let chunks = replay.chunks.into_iter();
        let bulk = chunks.map(|(.., chunk)| Bytes::from_owner(chunk)).collect();
        self.send(ToClient::Answer { text, bulk })
    }

    fn event(&mut self, process: &Process, wire: Wire, seq: u64, event: Event) -> io::Result<()> {
        match event {
            Event::Output(stream, chunk) if wire == Wire::Modern => self.send(ToClient::Output {
                process_id: process.shared_id(),
                seq,
                stream: encode::stream_name(stream),
                chunk: Bytes::from_owner(chunk),
            }),
            _ => {
                encode::event(&mut self.encoder, process.id(), wire, seq, &event);
                self.send_encoded()
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check_cut()
    }

    fn is_large(&self) -> bool {
        false
    }

    fn shrink(&mut self) {}
}
