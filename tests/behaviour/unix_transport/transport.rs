//! A transport over Unix stream sockets, as a user would write one: by the public interface only.
//!
//! An address names a file in a directory. Who dials binds one of its own, so that who accepts knows it by an address, and is
//! known by the credentials of its process. Each turn looks at every connection, which is plain, and too much for thousands.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tickcast::components::Slot;
use tickcast::transport::{
    Capabilities, Opening, ReceiveSink, SenderEvent, StopCause, Transmit, Transport, TransportShard, Verdict, Writable,
    stop_cause,
};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::connection::Connection;

/// The longest frame, in bytes.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;

/// Accepted connections that may wait to be admitted; beyond that, whoever connects is closed at once.
const LOBBY_MAX: usize = 64;

/// Accepted, and nobody's: shard 0 reads them, and whichever shard opens one takes it out.
type Lobby = Arc<Mutex<BTreeMap<SocketAddr, Connection>>>;

/// Unix stream sockets in a directory.
pub(crate) struct Unix {
    directory: PathBuf,
    addr: SocketAddr,
    lobby: Lobby,
    ports: Arc<AtomicU16>,
}

impl Unix {
    /// Listens at the file that `addr` names.
    pub(crate) fn new(directory: &Path, addr: SocketAddr) -> Self {
        let ports = Arc::new(AtomicU16::new(49_152));
        Self { directory: directory.into(), addr, lobby: Lobby::default(), ports }
    }
}

impl Transport for Unix {
    type Shard = UnixShard;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::stream(FRAME_BYTES_MAX);
        capabilities.accepts = true;
        capabilities
    }

    fn bind(&mut self, shard: usize) -> io::Result<UnixShard> {
        let listener = (shard == 0).then(|| UnixListener::bind(path(&self.directory, self.addr))).transpose()?;
        Ok(UnixShard {
            directory: self.directory.clone(),
            addr: self.addr,
            listener,
            lobby: self.lobby.clone(),
            ports: self.ports.clone(),
            senders: BTreeMap::new(),
            events: VecDeque::new(),
            buffer: vec![0; 65_536],
        })
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr]
    }
}

/// One shard of [`Unix`].
pub(crate) struct UnixShard {
    directory: PathBuf,
    addr: SocketAddr,
    /// Of shard 0.
    listener: Option<UnixListener>,
    lobby: Lobby,
    /// Where the names of dialled connections come from.
    ports: Arc<AtomicU16>,
    senders: BTreeMap<Slot, (SocketAddr, Sender)>,
    events: VecDeque<SenderEvent>,
    buffer: Vec<u8>,
}

enum Sender {
    Dialling(Dialling),
    Connected(Connection),
    Stopped,
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>>;

impl TransportShard for UnixShard {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        let accepted = self.lobby.lock().unwrap().remove(&addr);
        let sender = match (accepted, opening) {
            (Some(connection), _) => {
                self.events.push_back(SenderEvent::Connected(slot, Some(connection.identity())));
                Sender::Connected(connection)
            }
            (None, Opening::Dial) => Sender::Dialling(Box::pin(self.dial(addr))),
            (None, Opening::Attach) => {
                self.events.push_back(SenderEvent::Stopped(slot, StopCause::Closed));
                Sender::Stopped
            }
        };
        self.senders.insert(slot, (addr, sender));
    }

    fn close(&mut self, slot: Slot) {
        self.senders.remove(&slot);
        self.events.retain(
            |event| !matches!(event, SenderEvent::Connected(of, _) | SenderEvent::Stopped(of, _) if *of == slot),
        );
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.lobby.lock().unwrap().remove(&addr);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let mut calls = 0;
        for run in transmits.chunk_by(|one, next| one.slot == next.slot) {
            let slot = run[0].slot;
            let Some((_, sender)) = self.senders.get_mut(&slot) else {
                verdicts.extend(run.iter().map(|_| Verdict::Blocked));
                continue;
            };
            let Sender::Connected(connection) = sender else {
                verdicts.extend(run.iter().map(|_| Verdict::Blocked));
                continue;
            };
            calls += 1;
            if let Err(error) = connection.write(run, verdicts) {
                *sender = Sender::Stopped;
                self.events.push_back(SenderEvent::Stopped(slot, stop_cause(&error)));
            }
        }
        calls
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        for (&slot, (_, sender)) in &mut self.senders {
            let Sender::Connected(connection) = sender else { continue };
            match connection.poll_writable(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Poll::Ready(Writable::Slot(slot)),
                Poll::Ready(Err(error)) => {
                    *sender = Sender::Stopped;
                    self.events.push_back(SenderEvent::Stopped(slot, stop_cause(&error)));
                }
            }
        }
        Poll::Pending
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        let Self { listener, lobby, senders, events, buffer, .. } = self;
        for (&slot, (addr, sender)) in senders {
            let Sender::Connected(connection) = sender else { continue };
            let mut push = |frame: &[u8]| sink.push(*addr, Some(slot), frame);
            match connection.poll_read(context, buffer, &mut push) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(cause)) => {
                    *sender = Sender::Stopped;
                    events.push_back(SenderEvent::Stopped(slot, cause));
                }
            }
        }
        let mut full = false;
        // Shard 0 reads what is nobody's.
        if listener.is_some() {
            lobby.lock().unwrap().retain(|&addr, connection| {
                let mut push = |frame: &[u8]| sink.push(addr, None, frame);
                match if full { Poll::Pending } else { connection.poll_read(context, buffer, &mut push) } {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => full = true,
                    Poll::Ready(Err(cause)) => {
                        events.push_back(SenderEvent::Ended(addr, cause));
                        return false;
                    }
                }
                true
            });
        }
        if full { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        self.accept(context);
        for (&slot, (_, sender)) in &mut self.senders {
            let Sender::Dialling(dialling) = sender else { continue };
            let Poll::Ready(result) = dialling.as_mut().poll(context) else { continue };
            match result.and_then(Connection::new) {
                Ok(connection) => {
                    self.events.push_back(SenderEvent::Connected(slot, Some(connection.identity())));
                    *sender = Sender::Connected(connection);
                }
                Err(error) => {
                    self.events.push_back(SenderEvent::Stopped(slot, stop_cause(&error)));
                    *sender = Sender::Stopped;
                }
            }
        }
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl UnixShard {
    /// Connects from a file of its own.
    fn dial(&self, addr: SocketAddr) -> impl Future<Output = io::Result<UnixStream>> + use<> {
        let own = SocketAddr::new(self.addr.ip(), self.ports.fetch_add(1, Ordering::Relaxed));
        let (own, to) = (path(&self.directory, own), path(&self.directory, addr));
        async move {
            let socket = UnixSocket::new_stream()?;
            socket.bind(own)?;
            socket.connect(to).await
        }
    }

    fn accept(&mut self, context: &mut Context<'_>) {
        let Some(listener) = &self.listener else { return };
        let mut lobby = self.lobby.lock().unwrap();
        while let Poll::Ready(Ok((stream, from))) = listener.poll_accept(context) {
            let name = from.as_pathname().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
            // Who has no name cannot be an endpoint.
            let (Some(addr), Ok(connection)) = (name, Connection::new(stream)) else { continue };
            if lobby.len() < LOBBY_MAX {
                self.events.push_back(SenderEvent::Accepted(addr, Some(connection.identity())));
                lobby.insert(addr, connection);
            }
        }
    }
}

/// The file that an address names.
pub(super) fn path(directory: &Path, addr: SocketAddr) -> PathBuf {
    directory.join(addr.to_string())
}
