//! What errors of sockets mean.

use std::io::{Error, ErrorKind};

pub(super) use crate::transport::stop_cause as cause;

/// Whether an operation that met this error only has to be tried again.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether an error of accepting was about the one connection that was to be accepted, so that the next may be at once. All
/// others, too many open files or too little memory among them, would only be met again.
pub(super) fn is_of_one_connection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use tickcast_components::StopCause;

    use super::*;

    /// Goal: each error that a host can tell from others has its cause, and what is not known is the socket's.
    #[test]
    fn causes_of_errors() {
        for (kind, expected) in [
            (ErrorKind::ConnectionRefused, StopCause::Refused),
            (ErrorKind::ConnectionReset, StopCause::Reset),
            (ErrorKind::BrokenPipe, StopCause::Reset),
            (ErrorKind::TimedOut, StopCause::TimedOut),
            (ErrorKind::HostUnreachable, StopCause::Unreachable),
            (ErrorKind::NetworkUnreachable, StopCause::Unreachable),
            (ErrorKind::Other, StopCause::Socket),
        ] {
            assert_eq!(cause(&kind.into()), expected, "{kind}");
        }
    }

    /// Goal: what another accept would only meet again is told from what it would not.
    #[cfg(target_os = "linux")]
    #[test]
    fn errors_of_accepting() {
        for (number, one) in [
            (libc::ECONNABORTED, true),
            (libc::EINTR, true),
            (libc::EPERM, true),
            (libc::EMFILE, false),
            (libc::ENFILE, false),
            (libc::ENOBUFS, false),
            (libc::ENOMEM, false),
            (libc::EBADF, false),
        ] {
            let error = Error::from_raw_os_error(number);
            assert_eq!(is_of_one_connection(&error), one, "{error}");
        }
        assert_eq!(cause(&Error::from_raw_os_error(libc::EMFILE)), StopCause::Socket);
        assert_eq!(cause(&Error::from_raw_os_error(libc::EPIPE)), StopCause::Reset);
    }
}
