//! What a client and a server say to each other, whatever carries it.
//!
//! Owns: the numbers of what is sent, the statistics of what is received, the greeting, acknowledgements both ways.
//! Never does: touch a socket; it is given the way to send.

use std::io::{self, ErrorKind};
use std::mem::take;

use super::Incoming;
use super::greeting::Greeting;
use super::stats::ClientStats;
use super::unconfirmed::Unconfirmed;
use crate::framing::{
    AckBlock, Acknowledger, Arrival, Cookie, DecodeError, EncodeError, Encoder, Framing, Label, MessageId,
    SequenceTracker, decode,
};

/// Sends one datagram, or nothing of it.
pub(super) type Send<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

#[derive(Debug)]
pub(super) struct Session {
    framing: Framing,
    pub(super) encoder: Encoder,
    greeting: Greeting,
    tracker: SequenceTracker,
    acknowledger: Acknowledger,
    unconfirmed: Unconfirmed,
    stats: ClientStats,
}

impl Session {
    pub(super) fn new(framing: Framing, encoder: Encoder) -> Self {
        Self {
            framing,
            encoder,
            greeting: Greeting::default(),
            tracker: SequenceTracker::new(),
            acknowledger: Acknowledger::new(),
            unconfirmed: Unconfirmed::default(),
            stats: ClientStats::default(),
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.encoder.epoch()
    }

    pub(super) fn stats(&self) -> ClientStats {
        ClientStats { sequences: self.tracker.stats(), ..self.stats }
    }

    pub(super) fn stats_mut(&mut self) -> &mut ClientStats {
        &mut self.stats
    }

    /// The server knows this client by another address now, and may number what it sends anew.
    pub(super) fn restart(&mut self) {
        self.tracker.restart();
        self.greeting.forget();
        self.acknowledger.restart();
        self.encoder.forget_acknowledgement();
        self.stats.forgotten += self.unconfirmed.forget();
    }

    pub(super) fn hello(&mut self, payload: &[u8], send: Send<'_>) -> io::Result<()> {
        if self.framing == Framing::Raw {
            return self.transmit(payload, send);
        }
        let cookie = self.greeting.cookie();
        self.transmit_framed(|encoder| encoder.hello(payload, cookie.as_ref()), send)?;
        self.greeting.begin(payload);
        Ok(())
    }

    pub(super) fn message(&mut self, label: Label, payload: &[u8], send: Send<'_>) -> io::Result<()> {
        match self.framing {
            Framing::Framed => self.transmit_framed(|encoder| encoder.message(label, payload), send).map(drop),
            Framing::Raw => self.transmit(payload, send),
        }
    }

    pub(super) fn message_acked(&mut self, label: Label, payload: &[u8], send: Send<'_>) -> io::Result<MessageId> {
        if self.framing == Framing::Raw {
            return Err(io::Error::new(ErrorKind::Unsupported, "raw payloads cannot be confirmed"));
        }
        let datagram = self.transmit_framed(|encoder| encoder.message_wanting_ack(label, payload), send)?;
        let decoded = decode(&datagram).expect("what an encoder has made is valid");
        let record = decoded.records().next().expect("it was made of one message");
        self.stats.forgotten += self.unconfirmed.push(decoded.header.sequence, record.id);
        Ok(record.id)
    }

    /// The messages that the server has confirmed since this was asked last.
    pub(super) fn confirmed(&mut self) -> Vec<MessageId> {
        self.unconfirmed.take()
    }

    /// Sends what `encode` makes, and keeps the numbers that it used only if that went well.
    fn transmit_framed(
        &mut self,
        encode: impl FnOnce(&mut Encoder) -> Result<Vec<u8>, EncodeError>,
        send: Send<'_>,
    ) -> io::Result<Vec<u8>> {
        let mut encoder = self.encoder.clone();
        let datagram = encode(&mut encoder).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        self.transmit(&datagram, send)?;
        self.encoder = encoder;
        Ok(datagram)
    }

    fn transmit(&mut self, datagram: &[u8], send: Send<'_>) -> io::Result<()> {
        send(datagram)?;
        self.stats.sent += 1;
        Ok(())
    }

    /// Takes one datagram of the server's.
    pub(super) fn take(
        &mut self,
        datagram: &[u8],
        send: Send<'_>,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), DecodeError> {
        if self.framing == Framing::Raw {
            self.stats.delivered += 1;
            let id = MessageId { epoch: 0, sequence: self.stats.delivered };
            deliver(Incoming { id, label: Label::default(), payload: datagram, arrival: Arrival::New });
            return Ok(());
        }
        let decoded = decode(datagram).inspect_err(|_| self.stats.malformed += 1)?;
        let header = decoded.header;
        if let Some(cookie) = header.cookie.filter(|_| decoded.is_challenge()) {
            self.answer(header.epoch, cookie, send);
            return Ok(());
        }
        let arrival = self.tracker.observe(header.epoch, header.sequence);
        // A duplicate, too: its acknowledgement may have been lost.
        if decoded.wants_ack()
            && let Some(block) = self.acknowledger.observe(header.epoch, header.sequence)
        {
            self.acknowledge(block, send);
        }
        if arrival == Arrival::Duplicate {
            return Ok(());
        }
        if let Some(block) = header.ack {
            self.unconfirmed.confirm(block);
        }
        self.greeting.answered();
        for record in decoded.records() {
            self.stats.delivered += 1;
            deliver(Incoming { id: record.id, label: record.label, payload: record.payload, arrival });
        }
        Ok(())
    }

    /// Acknowledges what has been read and wants it.
    pub(super) fn acknowledge_all(&mut self, send: Send<'_>) {
        if let Some(block) = self.acknowledger.take() {
            self.acknowledge(block, send);
        }
    }

    /// Sends a block in a datagram of its own, or else with the next one that can be sent.
    fn acknowledge(&mut self, block: AckBlock, send: Send<'_>) {
        let mut encoder = self.encoder.clone();
        if self.transmit(&encoder.ack(block), send).is_ok() {
            self.encoder = encoder;
        } else {
            // One that waits already gives way: it has become the older news.
            self.encoder.acknowledge(block);
        }
    }

    /// Takes a challenge of the server's: repeats the greeting with its cookie.
    fn answer(&mut self, epoch: u32, cookie: Cookie, send: Send<'_>) {
        // Who has not seen the greeting can only guess its epoch.
        if epoch != self.encoder.epoch() || !self.greeting.take(cookie) {
            self.stats.unsolicited += 1;
            return;
        }
        self.stats.challenged += 1;
        let mut greeting = take(&mut self.greeting);
        // A socket that refuses it will refuse the next `hello` too, or else that one carries the cookie.
        if self.transmit_framed(|encoder| encoder.hello(greeting.payload(), Some(&cookie)), send).is_ok() {
            greeting.echoed();
        }
        self.greeting = greeting;
    }
}
