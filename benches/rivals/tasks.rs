//! What a program writes first: a task per client, with a channel each, or one broadcast channel for all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use tickcast::Bytes;
use tickcast::framing::frame_prefix;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::common::side::Side;
use crate::crowd::Clients;
use crate::datagrams::WILDCARD;
use crate::plain::ALONE;
use crate::{streams, tcp};

/// Messages that wait for one client.
const CHANNEL: usize = 100;
/// Messages that wait for whichever client is the slowest.
const BROADCAST: usize = 1024;

/// Sends what a channel per client has.
pub(crate) struct Classic {
    channels: Vec<mpsc::Sender<Bytes>>,
    /// Given to channels, and gone.
    given: u64,
    gone: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Classic {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let addrs = clients.open_plain(ALONE, bytes);
        let runtime = runtime();
        let socket = socket(&runtime);
        let gone = Arc::new(AtomicU64::new(0));
        let task = |addr: SocketAddr| {
            let (sender, mut messages) = mpsc::channel::<Bytes>(CHANNEL);
            let (socket, gone) = (Arc::clone(&socket), Arc::clone(&gone));
            runtime.spawn(async move {
                while let Some(message) = messages.recv().await {
                    socket.send_to(&message, addr).await.expect("loopback takes it");
                    gone.fetch_add(1, Ordering::Relaxed);
                }
            });
            sender
        };
        let channels = addrs.into_iter().map(task).collect();
        Self { channels, given: 0, gone, _runtime: runtime }
    }
}

impl Side for Classic {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            for channel in &self.channels {
                self.given += u64::from(channel.try_send(payload.clone()).is_ok());
            }
        }
    }

    fn settle(&mut self) {
        until(&self.gone, self.given);
    }
}

/// As [`Classic`], over a connection per client, with each message behind its length.
pub(crate) struct ClassicTcp(Classic);

impl ClassicTcp {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let (listener, addr) = streams::listener();
        clients.begin(tcp::ALONE, bytes, addr, "-");
        let accepted = streams::accept(&listener, clients.number());
        clients.done();
        let runtime = runtime();
        let gone = Arc::new(AtomicU64::new(0));
        let task = |stream: std::net::TcpStream| {
            let (sender, mut messages) = mpsc::channel::<Bytes>(CHANNEL);
            let gone = Arc::clone(&gone);
            runtime.spawn(async move {
                let mut stream = TcpStream::from_std(stream).expect("it does not block");
                while let Some(message) = messages.recv().await {
                    stream.write_all(&message).await.expect("the client lives");
                    gone.fetch_add(1, Ordering::Relaxed);
                }
            });
            sender
        };
        let channels = accepted.into_iter().map(task).collect();
        Self(Classic { channels, given: 0, gone, _runtime: runtime })
    }
}

impl Side for ClassicTcp {
    fn tick(&mut self, payloads: &[Bytes]) {
        // Once for all clients, so that a message is one write and is copied for none of them.
        let frame = |payload: &Bytes| -> Bytes {
            let prefix = frame_prefix(payload.len(), usize::MAX).expect("it is small");
            [&prefix[..], payload].concat().into()
        };
        self.0.tick(&payloads.iter().map(frame).collect::<Vec<_>>());
    }

    fn settle(&mut self) {
        self.0.settle();
    }
}

/// Sends what the one channel has.
pub(crate) struct Broadcast {
    channel: broadcast::Sender<Bytes>,
    given: u64,
    /// Sent, or missed.
    gone: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Broadcast {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let addrs = clients.open_plain(ALONE, bytes);
        let runtime = runtime();
        let socket = socket(&runtime);
        let gone = Arc::new(AtomicU64::new(0));
        let channel = broadcast::Sender::<Bytes>::new(BROADCAST);
        for addr in addrs {
            let mut messages = channel.subscribe();
            let (socket, gone) = (Arc::clone(&socket), Arc::clone(&gone));
            runtime.spawn(async move {
                loop {
                    let count = match messages.recv().await {
                        Ok(message) => {
                            socket.send_to(&message, addr).await.expect("loopback takes it");
                            1
                        }
                        Err(RecvError::Lagged(missed)) => missed,
                        Err(RecvError::Closed) => return,
                    };
                    gone.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
        Self { channel, given: 0, gone, _runtime: runtime }
    }
}

impl Side for Broadcast {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            self.given += self.channel.send(payload.clone()).expect("all clients have tasks") as u64;
        }
    }

    fn settle(&mut self) {
        until(&self.gone, self.given);
    }
}

/// Waits until so many are gone.
fn until(gone: &AtomicU64, given: u64) {
    while gone.load(Ordering::Relaxed) < given {
        sleep(Duration::from_millis(1));
    }
}

/// One thread, as this engine has.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread can be started")
}

/// The socket that all tasks share.
fn socket(runtime: &Runtime) -> Arc<UdpSocket> {
    Arc::new(runtime.block_on(UdpSocket::bind(WILDCARD)).expect("any port"))
}
