//! A transport that writes down what it is asked to open, and when.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tickcast::components::Slot;
use tickcast::transport::{
    Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// One call of [`TransportShard::open`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) addr: SocketAddr,
    pub(crate) opening: Opening,
}

/// A transport that writes down what it is asked to open.
pub(crate) struct Watched<T> {
    inner: T,
    attempts: Attempts,
    /// Whether it says that it carries a transmit of no bytes.
    empty: bool,
}

impl<T> Watched<T> {
    /// One that writes into `attempts`.
    pub(crate) fn new(inner: T, attempts: &Attempts) -> Self {
        Self { inner, attempts: attempts.clone(), empty: true }
    }

    /// One that says that it carries a transmit of no bytes, or does not.
    pub(crate) fn empty(mut self, empty: bool) -> Self {
        self.empty = empty;
        self
    }
}

/// What was asked so far.
#[derive(Clone, Default)]
pub(crate) struct Attempts(Arc<Mutex<Vec<Attempt>>>);

impl Attempts {
    /// All of it, in order.
    pub(crate) fn all(&self) -> Vec<Attempt> {
        self.0.lock().unwrap().clone()
    }

    /// How much.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// When this address was tried.
    pub(crate) fn at(&self, addr: SocketAddr) -> Vec<Instant> {
        self.all().into_iter().filter(|attempt| attempt.addr == addr).map(|attempt| attempt.at).collect()
    }

    /// Asserts that no second, wherever it begins, has seen more than so many.
    #[track_caller]
    pub(crate) fn assert_per_second(&self, max: usize) {
        let all = self.all();
        for (first, from) in all.iter().enumerate() {
            let within = all[first..].iter().take_while(|attempt| attempt.at < from.at + SECOND).count();
            assert!(within <= max, "{within} attempts within a second from {:?}", from.at);
        }
    }
}

impl<T: Transport> Transport for Watched<T> {
    type Shard = Watched<T::Shard>;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.empty &= self.empty;
        capabilities
    }

    fn bind(&mut self, shard: usize) -> std::io::Result<Self::Shard> {
        Ok(Watched::new(self.inner.bind(shard)?, &self.attempts))
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.inner.local_addrs()
    }
}

impl<S: TransportShard> TransportShard for Watched<S> {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.attempts.0.lock().unwrap().push(Attempt { at: Instant::now(), addr, opening });
        self.inner.open(slot, addr, opening);
    }

    fn close(&mut self, slot: Slot) {
        self.inner.close(slot);
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.inner.refuse(addr);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        self.inner.send(transmits, verdicts)
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        self.inner.poll_writable(context)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        self.inner.poll_receive(context, sink)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        self.inner.poll_event(context)
    }
}
