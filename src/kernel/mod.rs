//! The calls of the system that no safe wrapper offers. The only unsafe code of the library.
//!
//! - `mmsg`: sending and receiving many datagrams in one call.
//! - `errors`: what a socket's error queue holds.
//! - `control`: the control messages that go with datagrams.
//! - `name`: addresses in the kernel's form.
//! - `options`: options of sockets.
//! - `thread`: how the kernel schedules the I/O threads.
//! - `winsock`: the one option that a UDP socket needs on Windows.

#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
pub(crate) mod errors;
#[cfg(target_os = "linux")]
pub(crate) mod mmsg;
#[cfg(target_os = "linux")]
mod name;
#[cfg(target_os = "linux")]
pub(crate) mod options;
#[cfg(target_os = "linux")]
pub(crate) mod thread;
#[cfg(windows)]
pub(crate) mod winsock;
