//! UDP behind an uplink that takes so many bytes a second: over it, sends answer `Blocked`, as a full socket of the system does.
//!
//! On loopback a datagram is delivered before its send returns, so that no socket is ever full. Everything else is the engine's
//! own transport and the kernel's sockets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tickcast::components::Slot;
use tickcast::transport::udp::{Udp, UdpShard};
use tickcast::transport::{
    Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use tokio::time::Sleep;

/// How many bytes a second the uplink takes; [`u64::MAX`] is no limit.
#[derive(Clone)]
pub(crate) struct Rate(Arc<AtomicU64>);

impl Rate {
    pub(crate) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The transport.
pub(crate) struct Uplink {
    udp: Udp,
    rate: Rate,
}

impl Uplink {
    /// Without a limit, and how to give it one.
    pub(crate) fn new(udp: Udp) -> (Self, Rate) {
        let rate = Rate(Arc::new(AtomicU64::new(u64::MAX)));
        (Self { udp, rate: rate.clone() }, rate)
    }
}

impl Transport for Uplink {
    type Shard = UplinkShard;

    fn capabilities(&self) -> Capabilities {
        self.udp.capabilities()
    }

    fn bind(&mut self, shard: usize) -> io::Result<UplinkShard> {
        let bucket = Bucket { rate: self.rate.clone(), bytes: 0.0, at: Instant::now() };
        Ok(UplinkShard { udp: self.udp.bind(shard)?, bucket, is_udp_blocked: false, sleep: None })
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.udp.local_addrs()
    }
}

/// One shard's share of it.
pub(crate) struct UplinkShard {
    udp: UdpShard,
    bucket: Bucket,
    /// Whether the sockets themselves have blocked something.
    is_udp_blocked: bool,
    /// Until there is room again.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TransportShard for UplinkShard {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.udp.open(slot, addr, opening);
    }

    fn close(&mut self, slot: Slot) {
        self.udp.close(slot);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let taken = self.bucket.take(transmits.iter().map(|transmit| transmit.bytes));
        let first = verdicts.len();
        let syscalls = if taken > 0 { self.udp.send(&transmits[..taken], verdicts) } else { 0 };
        self.is_udp_blocked |= verdicts[first..].contains(&Verdict::Blocked);
        verdicts.resize(first + transmits.len(), Verdict::Blocked);
        syscalls
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        if self.is_udp_blocked
            && let Poll::Ready(writable) = self.udp.poll_writable(context)
        {
            self.is_udp_blocked = false;
            return Poll::Ready(writable);
        }
        loop {
            let Some(pause) = self.bucket.pause() else {
                self.sleep = None;
                return Poll::Ready(Writable::All);
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        self.udp.poll_receive(context, sink)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        self.udp.poll_event(context)
    }

    fn kernel_drops(&self) -> u64 {
        self.udp.kernel_drops()
    }
}

/// What the uplink can take now: it fills by the rate, and what was idle for long counts as idle for a short time.
struct Bucket {
    rate: Rate,
    /// Negative after a datagram that was larger than what was left.
    bytes: f64,
    at: Instant,
}

impl Bucket {
    /// How many of these datagrams, in order, the uplink takes.
    fn take(&mut self, datagrams: impl ExactSizeIterator<Item = usize>) -> usize {
        if self.rate.bytes() == u64::MAX {
            return datagrams.len();
        }
        self.fill();
        let fits = |bytes: &usize| {
            let fits = self.bytes > 0.0;
            if fits {
                self.bytes -= *bytes as f64;
            }
            fits
        };
        datagrams.take_while(fits).count()
    }

    /// How long until it takes some again; `None` is now.
    fn pause(&mut self) -> Option<Duration> {
        if self.rate.bytes() == u64::MAX {
            return None;
        }
        self.fill();
        (self.bytes <= 0.0).then_some(PAUSE)
    }

    fn fill(&mut self) {
        let (now, rate) = (Instant::now(), self.rate.bytes() as f64);
        let filled = self.bytes + rate * (now - self.at).as_secs_f64();
        self.bytes = filled.min(rate * BURST.as_secs_f64());
        self.at = now;
    }
}

/// How often a full uplink is asked again.
const PAUSE: Duration = Duration::from_millis(2);
/// How much an idle uplink takes at once.
const BURST: Duration = Duration::from_millis(10);
