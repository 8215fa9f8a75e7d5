//! What a [`Tcp`](super::Tcp) was built with, and what of it cannot be.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

use super::connection::Patience;
use super::table::Limits;

/// The options, in the units of their builders.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) listen: Option<SocketAddr>,
    pub(super) only_v6: bool,
    pub(super) backlog: u32,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) nodelay: bool,
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
    pub(super) send_buffer_bytes: Option<usize>,
    pub(super) receive_buffer_bytes: Option<usize>,
    pub(super) frame_bytes_max: usize,
    pub(super) connections_max: usize,
    pub(super) connections_per_address_max: usize,
    pub(super) first_frame_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) linger: Duration,
}

impl Settings {
    /// What is impossible is an error before anything is bound.
    pub(super) fn check(&self) -> io::Result<()> {
        let invalid = |what: &str| Err(io::Error::new(ErrorKind::InvalidInput, what));
        let durations = [
            ("keepalive", self.keepalive, Duration::from_secs(1)),
            ("user_timeout", self.user_timeout, Duration::from_millis(1)),
            ("first_frame_timeout", self.first_frame_timeout, Duration::from_millis(1)),
            ("idle_timeout", self.idle_timeout, Duration::from_millis(1)),
            ("write_timeout", self.write_timeout, Duration::from_millis(1)),
        ];
        for (name, duration, min) in durations {
            if duration.is_some_and(|duration| duration < min) {
                return invalid(&format!("{name} is below {min:?}; None switches it off"));
            }
        }
        let numbers = [
            ("frame_bytes_max", self.frame_bytes_max),
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("backlog", self.backlog as usize),
            ("send_buffer_bytes", self.send_buffer_bytes.unwrap_or(1)),
            ("receive_buffer_bytes", self.receive_buffer_bytes.unwrap_or(1)),
        ];
        for (name, number) in numbers {
            if !(1..=i32::MAX as usize).contains(&number) {
                return invalid(&format!("{name} is {number}, but must be between 1 and {}", i32::MAX));
            }
        }
        if self.linger > LINGER_MAX {
            return invalid(&format!("linger is over {LINGER_MAX:?}"));
        }
        if self.local_ip.is_some_and(|ip| ip.is_multicast()) || self.listen.is_some_and(|at| at.ip().is_multicast()) {
            return invalid("a multicast address cannot be bound for streams");
        }
        if self.user_timeout.is_some() && !cfg!(target_os = "linux") {
            return Err(io::Error::new(ErrorKind::Unsupported, "user_timeout exists on Linux only"));
        }
        Ok(())
    }

    /// What the connections of a shard need to know.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            frame_bytes_max: self.frame_bytes_max,
            linger: self.linger,
            patience: Patience {
                first_frame: self.first_frame_timeout,
                idle: self.idle_timeout,
                write: self.write_timeout,
            },
        }
    }

    /// Sizes the buffers, which the other side is told of when the connection is made.
    pub(super) fn size_buffers(&self, socket: &Socket) -> io::Result<()> {
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }

    /// Sets what every connection has, dialled or accepted: not every system hands it on from the listener.
    pub(super) fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(time) = self.keepalive {
            socket.set_tcp_keepalive(&keepalive(time))?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

/// A probe after so long a silence, and then a few more, a third of that apart, where the system lets us say so.
fn keepalive(time: Duration) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(time);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keepalive = keepalive.with_interval((time / 3).max(Duration::from_secs(1)));
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    keepalive
}

/// Probes without an answer before a connection counts as broken.
const KEEPALIVE_RETRIES: u32 = 3;

/// The longest that a closed connection may stay.
const LINGER_MAX: Duration = Duration::from_mins(1);
