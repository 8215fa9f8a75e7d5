//! Many datagrams in one call: `sendmmsg`, `recvmmsg`, and what the kernel splits and joins for us.
//!
//! Owns: the arrays that these calls read and write.
//! Never does: deciding what may share a header or what an answer means, waiting, retrying.

#![expect(unsafe_code, reason = "no safe wrapper sends to many addresses in one call or reads the drop counter")]

use std::io::{self, IoSlice};
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr};

use super::control::{Control, find};
use super::name::Name;
use crate::transport::Transmit;
use crate::transport::udp::runs::Run;
use crate::transport::udp::socket::mapped;
use crate::transport::udp::{DATAGRAM_BYTES_MAX, IO_SLICES_MAX};

/// Sends batches. Its arrays are reused, so that a steady state allocates nothing.
pub(crate) struct BatchSender {
    v6: bool,
    headers: Vec<mmsghdr>,
    names: Vec<Name>,
    controls: Vec<Control>,
    /// For transmits of more parts than one call takes.
    gathered: Vec<u8>,
}

// SAFETY: the raw pointers in `headers` are what keeps this from being `Send` by itself. They are written and passed to
// the kernel within one call of `send` and never followed outside of it, so it does not matter which thread holds them.
unsafe impl Send for BatchSender {}

impl BatchSender {
    /// For sockets of one family.
    pub(crate) fn new(v6: bool) -> Self {
        Self {
            v6,
            headers: Vec::with_capacity(SEND_BATCH),
            names: Vec::with_capacity(SEND_BATCH),
            controls: Vec::with_capacity(SEND_BATCH),
            gathered: Vec::new(),
        }
    }

    /// Sends the first of `transmits` by one system call, a header for each of `runs`; returns how many headers left.
    ///
    /// Neither is empty; the runs follow one another, and there are no more transmits in them than there are.
    ///
    /// # Errors
    ///
    /// That of the very first header; nothing was sent.
    pub(crate) fn send(&mut self, socket: &UdpSocket, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize> {
        match transmits.first() {
            Some(first) if first.parts.len() > IO_SLICES_MAX => {
                let mut gathered = mem::take(&mut self.gathered);
                gathered.clear();
                first.parts.iter().for_each(|part| gathered.extend_from_slice(part));
                let whole = [Transmit { parts: &[IoSlice::new(&gathered)], ..*first }];
                let sent = self.send_batch(socket, &whole, &[Run::SINGLE]);
                self.gathered = gathered;
                sent
            }
            _ => self.send_batch(socket, transmits, runs),
        }
    }

    /// Sends runs of which none has too many parts.
    fn send_batch(&mut self, socket: &UdpSocket, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize> {
        self.names.clear();
        self.controls.clear();
        self.headers.clear();
        // All names and controls are there before a header points at one, so that none moves afterwards.
        let mut rest = transmits;
        for run in runs {
            let (of_run, others) = rest.split_at(run.transmits());
            self.names.push(Name::from(mapped(of_run[0].addr, self.v6)));
            if run.segment_bytes().is_some() {
                self.controls.push(Control::EMPTY);
            }
            rest = others;
        }
        let mut controls = self.controls.iter_mut();
        let mut rest = transmits;
        self.headers.extend(self.names.iter_mut().zip(runs).map(|(name, run)| {
            let (of_run, others) = rest.split_at(run.transmits());
            rest = others;
            let parts_len = of_run.iter().map(|transmit| transmit.parts.len()).sum();
            // The standard library guarantees that `IoSlice` has the layout of `iovec` on Unix. The kernel only reads.
            let mut header = header(name, of_run[0].parts.as_ptr().cast_mut().cast::<iovec>(), parts_len);
            if let Some((bytes, control)) = run.segment_bytes().and_then(|bytes| Some((bytes, controls.next()?))) {
                control.carry_u16(&mut header.msg_hdr, libc::SOL_UDP, libc::UDP_SEGMENT, bytes);
            }
            header
        }));
        // SAFETY: `headers` has `headers.len()` initialised elements. Each points at a name, and some at a control
        // buffer with one message, which `names` and `controls` keep in place until the next call; and at the slices of
        // a run's transmits, which the borrow of `transmits` keeps alive for longer than this call, as it does the bytes
        // that they describe. Slices of several transmits are passed as one range only if they lie side by side in
        // memory, which whoever made the run has checked: so every address in the range is within one of them. The
        // kernel writes nothing but `msg_len` of the headers, which are ours.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), self.headers.len() as libc::c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Receives batches and hands out their datagrams one by one, also those that the kernel hands over as one.
///
/// The arena has room for [`RECEIVE_BATCH`] datagrams of any size: 2 MiB of addresses. Memory is used only where
/// datagrams have been written, a page for each buffer that never saw more than that: 128 KiB with usual datagrams.
pub(crate) struct BatchReceiver {
    arena: Vec<u8>,
    names: Vec<Name>,
    controls: Vec<Control>,
    parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
    /// The size of the datagrams in each buffer; the last one of a buffer may be shorter.
    segments: Vec<usize>,
    /// How many of the buffers hold something, and what of it is not handed out yet.
    filled: usize,
    cursor: Cursor,
    drops: DropCount,
}

/// The next datagram to hand out.
#[derive(Default)]
struct Cursor {
    buffer: usize,
    /// Where in the buffer it begins.
    offset: usize,
}

// SAFETY: as for `BatchSender`: the raw pointers in `parts` and `headers` are written anew and followed by the kernel
// within one call of `fill`, and by ours before that call of `fill` returns; outside of it only lengths are read.
unsafe impl Send for BatchReceiver {}

impl BatchReceiver {
    pub(crate) fn new() -> Self {
        Self {
            arena: vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX],
            names: vec![Name::NONE; RECEIVE_BATCH],
            controls: vec![Control::EMPTY; RECEIVE_BATCH],
            parts: Vec::with_capacity(RECEIVE_BATCH),
            headers: Vec::with_capacity(RECEIVE_BATCH),
            segments: vec![DATAGRAM_BYTES_MAX; RECEIVE_BATCH],
            filled: 0,
            cursor: Cursor::default(),
            drops: DropCount::default(),
        }
    }

    /// Reads one batch, for which all of the last one must have been popped; returns whether there may be more.
    ///
    /// # Errors
    ///
    /// That of the first read; nothing was read.
    pub(crate) fn fill(&mut self, socket: &impl AsRawFd) -> io::Result<bool> {
        debug_assert_eq!(self.cursor.buffer, self.filled, "a batch is overwritten before it is popped");
        (self.filled, self.cursor) = (0, Cursor::default());
        self.point_headers();
        // SAFETY: `headers` has `RECEIVE_BATCH` initialised elements. Each points at a name, a control buffer and one
        // `iovec`, which points at a part of the arena of its own. All of them live in vectors of `self` that are not
        // touched before the call returns, and the lengths in the headers are those of what they point at.
        let filled = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                0,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        self.read_controls();
        Ok(self.filled == RECEIVE_BATCH)
    }

    /// The next datagram of the batch and where it came from.
    pub(crate) fn pop(&mut self) -> Option<(SocketAddr, &[u8])> {
        while self.cursor.buffer < self.filled {
            let Cursor { buffer, offset } = self.cursor;
            let filled = (self.headers[buffer].msg_len as usize).min(DATAGRAM_BYTES_MAX);
            let end = filled.min(offset + self.segments[buffer]);
            let next = Cursor { buffer: buffer + 1, offset: 0 };
            self.cursor = if end < filled { Cursor { buffer, offset: end } } else { next };
            // No family but these two ever arrives at such a socket; if one did, nobody could answer it.
            if let Some(from) = self.names[buffer].addr() {
                let start = buffer * DATAGRAM_BYTES_MAX;
                return Some((from, &self.arena[start + offset..start + end]));
            }
        }
        None
    }

    /// Datagrams that the kernel dropped at the socket, as of the last one read.
    pub(crate) fn kernel_drops(&self) -> u64 {
        self.drops.total
    }

    /// Writes all pointers anew: the kernel has overwritten the lengths beside them, and pointers that live no longer
    /// than a call need no argument about moves. It costs some 100 ns per batch.
    fn point_headers(&mut self) {
        self.parts.clear();
        self.parts.extend(
            self.arena
                .chunks_exact_mut(DATAGRAM_BYTES_MAX)
                .map(|room| iovec { iov_base: room.as_mut_ptr().cast::<c_void>(), iov_len: room.len() }),
        );
        self.headers.clear();
        let slots = self.names.iter_mut().zip(&mut self.controls).zip(&mut self.parts);
        self.headers.extend(slots.map(|((name, control), part)| {
            *name = Name::NONE;
            let mut header = header(name, part, 1);
            control.offer(&mut header.msg_hdr);
            header
        }));
    }

    /// Reads what came beside the batch: the count of drops, and of what size the datagrams are that came as one.
    fn read_controls(&mut self) {
        for (header, segment) in self.headers.iter().zip(&mut self.segments).take(self.filled) {
            let header = &header.msg_hdr;
            // SAFETY: the kernel has filled `header` in the call just before, its control buffer is still in place, and
            // both values are plain integers.
            let (drops, bytes) = unsafe {
                (
                    find::<u32>(header, libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
                    find::<c_int>(header, libc::SOL_UDP, libc::UDP_GRO),
                )
            };
            if let Some(count) = drops {
                self.drops.advance(count);
            }
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
            *segment = bytes.filter(|&bytes| bytes > 0).unwrap_or(DATAGRAM_BYTES_MAX);
        }
    }
}

/// The kernel's count is 32 bits wide and wraps; ours does not.
#[derive(Default)]
struct DropCount {
    total: u64,
}

impl DropCount {
    fn advance(&mut self, count: u32) {
        self.total += u64::from(count.wrapping_sub(self.total as u32));
    }
}

/// A header without control messages. The caller answers for what the pointers mean when the kernel follows them.
fn header(name: &mut Name, parts: *mut iovec, parts_len: usize) -> mmsghdr {
    // SAFETY: integers and raw pointers, for which all zeros are valid. Not a literal, since some C libraries have
    // private padding here.
    let mut header: mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_namelen = name.bytes();
    header.msg_hdr.msg_name = ptr::from_mut(name).cast::<c_void>();
    header.msg_hdr.msg_iov = parts;
    header.msg_hdr.msg_iovlen = parts_len as _;
    header
}

/// Headers per `sendmmsg`. Measured on Linux 6: 128 is as good as 1,024, and the arrays stay small (28 KiB).
pub(crate) const SEND_BATCH: usize = 128;

/// Datagrams per `recvmmsg`: enough to make the call itself negligible, few enough to hold what a full sink leaves.
const RECEIVE_BATCH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::options;

    /// Goal: datagrams that leave under one header arrive in one buffer where that is asked for, with their size beside
    /// it, and beside the count of drops.
    #[test]
    fn a_run_arrives_in_one_buffer() {
        let receive = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = UdpSocket::bind("127.0.0.1:0").unwrap();
        receive.set_nonblocking(true).unwrap();
        options::coalesce_received(&receive).unwrap();
        options::count_drops(&receive).unwrap();
        assert!(options::can_segment(&send));
        let addr = receive.local_addr().unwrap();
        let parts = [IoSlice::new(b"first"), IoSlice::new(b"secnd"), IoSlice::new(b"3rd"), IoSlice::new(b"alone")];
        let transmits: Vec<_> =
            parts.chunks(1).map(|parts| Transmit { slot: 0, addr, parts, bytes: parts[0].len() }).collect();
        let mut runs = Vec::new();
        crate::transport::udp::runs::plan(&transmits, SEND_BATCH, |_| usize::MAX, &mut runs);
        assert_eq!(BatchSender::new(false).send(&send, &transmits, &runs).unwrap(), 2);

        let mut batch = BatchReceiver::new();
        assert!(!batch.fill(&receive).unwrap());
        assert_eq!(batch.filled, 2);
        for expected in ["first", "secnd", "3rd", "alone"] {
            let (from, datagram) = batch.pop().unwrap();
            assert_eq!((from, datagram), (send.local_addr().unwrap(), expected.as_bytes()));
        }
        assert_eq!(batch.pop(), None);
    }

    /// Goal: the count of drops goes on when the kernel's 32 bits wrap.
    #[test]
    fn drops_are_counted_across_the_wrap() {
        let mut drops = DropCount::default();
        for (count, total) in [(3, 3), (3, 3), (u32::MAX, u64::from(u32::MAX)), (1, (1 << 32) + 1)] {
            drops.advance(count);
            assert_eq!(drops.total, total);
        }
    }
}
