//! The calls of the kernel that no safe wrapper offers. The only unsafe code of the library.
//!
//! - [`mmsg`]: sending and receiving many datagrams in one call.
//! - [`thread`]: how the kernel schedules the I/O threads.

#![cfg(target_os = "linux")]

pub(crate) mod mmsg;
pub(crate) mod thread;
