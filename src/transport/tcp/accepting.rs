//! Connections that others make.
//!
//! Owns: when to accept, and when not. Never does: serve what was accepted.
//!
//! A permit comes first. Without one nothing is accepted, and whoever connects waits in the system's backlog, which is as long
//! as it was made. An error that would only be met again, such as too many open files, makes the listener rest, longer each
//! time; none ends it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tickcast_components::canonical;
use tokio::time::{Instant, Sleep};

use super::causes::is_of_one_connection;
use super::gate::Gate;
use super::net::Net;
use super::table::{Table, unconstrained};
use crate::transport::SenderEvent;

/// The listener's side of shard 0.
#[derive(Debug)]
pub(super) struct Acceptor {
    gate: Arc<Gate>,
    /// Looks since the shard last ran out of events.
    looks: usize,
    /// Kept from rest to rest.
    sleep: Option<Pin<Box<Sleep>>>,
    resting: bool,
    next_rest: Duration,
}

impl Acceptor {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, looks: 0, sleep: None, resting: false, next_rest: REST_MIN }
    }

    /// Begins a rest, or a longer one than the last.
    fn rest(&mut self) {
        let until = Instant::now() + self.next_rest;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(until),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(until))),
        }
        self.resting = true;
        self.next_rest = (self.next_rest * 2).min(REST_MAX);
    }

    /// Whether it rests. If so, the task is woken at the end.
    fn rests(&mut self, context: &mut Context<'_>) -> bool {
        self.resting =
            self.resting && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(context).is_pending());
        self.resting
    }
}

impl<N: Net> Table<N> {
    /// Accepts one connection, and tells of it, if this shard listens and there is one.
    pub(super) fn accept(&mut self, context: &mut Context<'_>) -> Option<SenderEvent> {
        self.acceptor.as_ref()?;
        unconstrained(context, |context| self.try_accept(context))
    }

    fn try_accept(&mut self, context: &mut Context<'_>) -> Option<SenderEvent> {
        loop {
            let acceptor = self.acceptor.as_mut()?;
            if acceptor.rests(context) {
                acceptor.looks = 0;
                return None;
            }
            if acceptor.looks == ACCEPTS_PER_TURN_MAX {
                acceptor.looks = 0;
                context.waker().wake_by_ref();
                return None;
            }
            acceptor.looks += 1;
            let Some(permit) = acceptor.gate.enter() else {
                acceptor.looks = 0;
                return None;
            };
            match self.net.poll_accept(context) {
                Poll::Pending => {
                    acceptor.looks = 0;
                    return None;
                }
                Poll::Ready(Ok((io, addr))) => {
                    acceptor.next_rest = REST_MIN;
                    let addr = canonical(addr);
                    let Some(permit) = permit.for_source(addr.ip()) else {
                        tracing::debug!(%addr, "closed at once: its address has as many connections as it may have");
                        self.stats.count(|counters| &counters.over_address_limit);
                        continue;
                    };
                    self.stats.count(|counters| &counters.accepted);
                    self.admit(io, addr, permit);
                    return self.next_event();
                }
                Poll::Ready(Err(error)) => {
                    self.stats.count(|counters| &counters.accept_errors);
                    if is_of_one_connection(&error) {
                        tracing::debug!(%error, "a connection was gone before it was accepted");
                    } else {
                        tracing::warn!(%error, rest = ?acceptor.next_rest, "nothing can be accepted; the listener rests");
                        acceptor.rest();
                    }
                }
            }
        }
    }
}

/// Attempts to accept before everything else a shard does has its turn.
pub(super) const ACCEPTS_PER_TURN_MAX: usize = 64;

/// The first rest of a listener that can accept nothing.
pub(super) const REST_MIN: Duration = Duration::from_millis(10);

/// The longest rest: what the backlog holds is not kept waiting for longer once there is room again.
pub(super) const REST_MAX: Duration = Duration::from_secs(1);
