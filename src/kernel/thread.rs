//! How the kernel schedules a thread.

#![expect(unsafe_code, reason = "no safe wrapper in our dependencies sets a scheduling policy")]

use std::io;

/// Makes the calling thread one that does not preempt others when it is woken.
///
/// A thread that has slept may otherwise take the core of the one that wakes it, at once and until its work is done: the
/// frame would wait for the very sends that it has handed over. Where a core is idle it runs there either way.
///
/// # Errors
///
/// The error of the operating system; the policy is as it was.
pub(crate) fn yield_to_wakers() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: process id 0 means the calling thread, and the kernel only reads the parameters, which live until then.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
