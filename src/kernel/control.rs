//! The control messages that go with datagrams.
//!
//! Owns: their room, and how a value is written there and found there.
//! Never does: system calls, or deciding what a value means.

#![expect(unsafe_code, reason = "control messages are laid out by macros over raw pointers")]

use std::ptr;

use libc::{c_int, c_uint, c_void, msghdr};

/// Room for the control messages of one datagram, aligned as their headers must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control([u8; CONTROL_BYTES]);

impl Control {
    pub(super) const EMPTY: Self = Self([0; CONTROL_BYTES]);

    /// Makes `header` offer the whole room to the kernel. The caller keeps `self` in place until the call is over.
    pub(super) fn offer(&mut self, header: &mut msghdr) {
        header.msg_control = ptr::from_mut(self).cast::<c_void>();
        header.msg_controllen = CONTROL_BYTES as _;
    }

    /// Makes `header` carry one message with `value`. The caller keeps `self` in place until the call is over.
    pub(super) fn carry_u16(&mut self, header: &mut msghdr, level: c_int, kind: c_int, value: u16) {
        *self = Self::EMPTY;
        self.offer(header);
        // SAFETY: `header` offers the room of `self`, which is aligned for `cmsghdr` and larger than one with a `u16`, so
        // that the first message lies within and is not null. The value is written without asking for alignment.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as c_uint) as _;
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as c_uint) as _;
            libc::CMSG_DATA(message).cast::<u16>().write_unaligned(value);
        }
    }
}

/// The value of the message of this level and kind, if there is one that is long enough for a `T`.
///
/// # Safety
///
/// The kernel has filled `header` in a call just before, which began with the room of a [`Control`] that is still in
/// place; and every pattern of bits is a valid `T`.
pub(super) unsafe fn find<T: Copy>(header: &msghdr, level: c_int, kind: c_int) -> Option<T> {
    // SAFETY: `msg_control` points at room aligned for `cmsghdr`, of which `msg_controllen` bytes hold messages as the
    // kernel has written them. `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay within that, and so does a value that the length of
    // its message covers. It is read without asking for alignment; any bits are a `T`, by the caller's word.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let long_enough = (*message).cmsg_len as usize >= libc::CMSG_LEN(size_of::<T>() as c_uint) as usize;
            if (*message).cmsg_level == level && (*message).cmsg_type == kind && long_enough {
                return Some(libc::CMSG_DATA(message).cast::<T>().read_unaligned());
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

/// Enough for what is asked for in any direction: a `u16` out; a `u32` and a `c_int` in, 48 bytes; an error of the queue
/// with the address of who reported it, 64 bytes. The rest is for what somebody else may have switched on.
const CONTROL_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written is found again, under its own level and kind only, and never as something longer.
    #[test]
    fn what_is_written_is_found() {
        let mut control = Control::EMPTY;
        // SAFETY: integers and raw pointers, for which all zeros are valid.
        let mut header: msghdr = unsafe { std::mem::zeroed() };
        control.carry_u16(&mut header, 17, 103, 1_200);
        // SAFETY: the messages are as the kernel would write them, in a room that is in place; integers.
        unsafe {
            assert_eq!(find::<u16>(&header, 17, 103), Some(1_200));
            assert_eq!(find::<u16>(&header, 17, 104), None);
            assert_eq!(find::<u16>(&header, 1, 103), None);
            assert_eq!(find::<u64>(&header, 17, 103), None);
        }
    }
}
