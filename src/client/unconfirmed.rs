//! The messages that the server was asked to confirm.
//!
//! Owns: which they are, and which of them it has confirmed. Never does: send anything again, keep time.

use std::collections::VecDeque;

use crate::framing::{AckBlock, MessageId};

/// Messages that a client remembers until it has told of their confirmation. Beyond that the oldest is forgotten, and
/// counted: a caller who sends that many has long given it up.
pub const UNCONFIRMED_MAX: usize = 1024;

/// Confirmed or not, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    messages: VecDeque<Message>,
}

#[derive(Debug)]
struct Message {
    /// Of its datagram.
    sequence: u32,
    id: MessageId,
    confirmed: bool,
}

impl Unconfirmed {
    /// Notes a message. Returns how many had to be forgotten for it.
    pub(super) fn push(&mut self, sequence: u32, id: MessageId) -> u64 {
        let full = self.messages.len() >= UNCONFIRMED_MAX;
        if full {
            self.messages.pop_front();
        }
        self.messages.push_back(Message { sequence, id, confirmed: false });
        u64::from(full)
    }

    /// The server has received these datagrams.
    pub(super) fn confirm(&mut self, block: AckBlock) {
        for message in &mut self.messages {
            message.confirmed |= block.covers(message.sequence);
        }
    }

    /// Takes those that are confirmed.
    pub(super) fn take(&mut self) -> Vec<MessageId> {
        let confirmed = self.messages.iter().filter(|message| message.confirmed).map(|message| message.id).collect();
        self.messages.retain(|message| !message.confirmed);
        confirmed
    }

    /// Forgets what is not confirmed; returns how many those were.
    pub(super) fn forget(&mut self) -> u64 {
        let before = self.messages.len();
        self.messages.retain(|message| message.confirmed);
        (before - self.messages.len()) as u64
    }
}
