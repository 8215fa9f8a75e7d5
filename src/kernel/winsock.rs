//! The one option that a UDP socket needs on Windows.

#![expect(unsafe_code, reason = "no safe wrapper makes this call")]

use std::io;
use std::os::windows::io::{AsRawSocket, AsSocket};
use std::ptr;

use windows_sys::Win32::Networking::WinSock::{SIO_UDP_CONNRESET, WSAIoctl};

/// Stops the system from answering a receive with "connection reset" because an earlier datagram met a closed port.
pub(crate) fn ignore_connection_resets(socket: &impl AsSocket) -> io::Result<()> {
    // A `BOOL`: off.
    let report: i32 = 0;
    let mut returned: u32 = 0;
    // SAFETY: the socket is open, as it is borrowed. This code reads one `BOOL` and writes nothing, so that the output is
    // absent (null, length 0); the number of bytes returned has a place of its own. Without an `OVERLAPPED` the call ends
    // before it returns, so that nothing is used later.
    let answer = unsafe {
        WSAIoctl(
            socket.as_socket().as_raw_socket() as usize,
            SIO_UDP_CONNRESET,
            ptr::from_ref(&report).cast(),
            size_of::<i32>() as u32,
            ptr::null_mut(),
            0,
            &raw mut returned,
            ptr::null_mut(),
            None,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
