//! The network that is real: sockets of the operating system, registered with tokio.
//!
//! Owns: how they are opened, set up and bound. Never does: anything with what they carry.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tickcast_components::canonical;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::net::{Io, Net};
use super::settings::Settings;

/// One shard's way to connections.
#[derive(Debug)]
pub(super) struct Sockets {
    settings: Arc<Settings>,
    listener: Option<TcpListener>,
}

impl Sockets {
    /// With a listener for shard 0, if there is to be one.
    pub(super) fn new(settings: Arc<Settings>, listener: Option<TcpListener>) -> Self {
        Self { settings, listener }
    }
}

impl Net for Sockets {
    type Io = TcpStream;
    type Dialing = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

    fn dial(&mut self, addr: SocketAddr) -> io::Result<Self::Dialing> {
        let socket = open(addr)?;
        self.settings.size_buffers(&socket)?;
        self.settings.apply(SockRef::from(&socket))?;
        if let Some(ip) = self.settings.local_ip {
            if ip.is_ipv4() != addr.is_ipv4() {
                return Err(io::Error::new(ErrorKind::NetworkUnreachable, "the local address is of the other family"));
            }
            // The port is chosen when it connects, so that each one may serve towards several addresses.
            #[cfg(target_os = "linux")]
            if let Err(error) = crate::kernel::options::choose_port_late(&socket) {
                tracing::debug!(%error, "each dialled connection takes a port of its own");
            }
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        Ok(Box::pin(async move {
            let stream = socket.connect(addr).await?;
            // Whoever dials a port of the range that the system chooses from can meet himself there.
            if canonical(stream.local_addr()?) == addr {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            Ok(stream)
        }))
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let Some(listener) = &self.listener else { return Poll::Pending };
        let (stream, addr) = ready!(listener.poll_accept(context))?;
        if let Err(error) = self.settings.apply(SockRef::from(&stream)) {
            // It has ended already, which is for whoever reads it to find.
            tracing::debug!(%addr, %error, "the options of an accepted connection were refused");
        }
        Poll::Ready(Ok((stream, addr)))
    }
}

impl Io for TcpStream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(AsyncRead::poll_read(Pin::new(self), context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        if let Some(done) = at_once(SockRef::from(&*self).send_with_flags(bytes, libc::MSG_NOSIGNAL)) {
            return done;
        }
        TcpStream::try_write(self, bytes)
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        if let Some(done) = at_once(SockRef::from(&*self).send_vectored_with_flags(slices, libc::MSG_NOSIGNAL)) {
            return done;
        }
        TcpStream::try_write_vectored(self, slices)
    }

    fn finish(&mut self) {
        if let Err(error) = SockRef::from(&*self).shutdown(Shutdown::Write) {
            // It has ended already.
            tracing::trace!(%error, "nothing to finish");
        }
    }

    fn forsake(&mut self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "what nobody takes stays in the system for a while");
        }
    }
}

/// What a write has done that did not ask tokio first: what tokio knows of a connection lies where nothing else of it does, and
/// is not in the cache, which costs a fortieth of a small write (`benches/tcp`). Nothing if there was no room: then the write
/// is tried once more by way of tokio, which notes that there is none, and that it was so before whatever it hears next.
#[cfg(target_os = "linux")]
fn at_once(done: io::Result<usize>) -> Option<io::Result<usize>> {
    let is_full = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    (!is_full).then_some(done)
}

/// A listener, ready to accept.
pub(super) fn listen(addr: SocketAddr, settings: &Settings) -> io::Result<TcpListener> {
    let socket = open(addr)?;
    if addr.is_ipv6() {
        // Set both ways: the system's default differs between systems and can be changed on some.
        socket.set_only_v6(settings.only_v6)?;
    }
    // Connections of a server that has just ended do not keep the next one from the address. On Windows the option means
    // something else: to take the address from another.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    settings.size_buffers(&socket)?;
    socket.bind(&addr.into())?;
    socket.listen(settings.backlog.cast_signed())?;
    TcpListener::from_std(socket.into())
}

/// Whether the system has sockets of the family of this address.
pub(super) fn has_family(addr: SocketAddr) -> bool {
    open(addr).is_ok()
}

fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
