//! What the system's errors mean.
//!
//! Owns: the translation of errors. Never does: system calls, retries.

use std::io;

use tickcast_components::DropReason;

/// What to do about a send that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// By a signal: try again.
    Interrupted,
    /// The socket has no room. One queue serves all destinations: when it is full for one, it is for all.
    Full,
    /// The kernel or an interface has no room, which it may have soon, and for other destinations has now.
    NoMemory,
    /// The datagram is larger than what can be sent there.
    TooLong,
    /// It cannot be sent.
    Final(DropReason),
}

impl Failure {
    pub(super) fn of(error: &io::Error) -> Self {
        match drop_reason(error) {
            _ if error.kind() == io::ErrorKind::Interrupted => Self::Interrupted,
            _ if error.kind() == io::ErrorKind::WouldBlock => Self::Full,
            DropReason::NoBuffers => Self::NoMemory,
            DropReason::TooLarge => Self::TooLong,
            reason => Self::Final(reason),
        }
    }
}

/// Whether `error` is one that the kernel makes of ICMP, so that it may be about an earlier datagram to anybody.
pub(super) fn may_be_hearsay(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| code::HEARSAY.contains(&number))
}

/// Whether `error` may mean that datagrams cannot share a header on their way.
pub(super) fn refuses_segmentation(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| code::NO_SEGMENTATION.contains(&number))
}

/// Whether `error`, which refuses segmentation, may be about the size of the segments alone.
pub(super) fn may_be_about_size(error: &io::Error) -> bool {
    error.raw_os_error() == Some(code::MESSAGE_TOO_LONG) || error.kind() == io::ErrorKind::InvalidInput
}

/// Why a leg that met `error` is dropped.
fn drop_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(code::MESSAGE_TOO_LONG) => return DropReason::TooLarge,
        Some(code::NO_BUFFERS) => return DropReason::NoBuffers,
        Some(code::FAMILY_UNSUPPORTED) => return DropReason::Unreachable,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::OutOfMemory => DropReason::NoBuffers,
        io::ErrorKind::PermissionDenied => DropReason::NotPermitted,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::AddrNotAvailable => DropReason::Unreachable,
        // EINVAL is here: a link-local address without its scope, or port 0.
        _ => DropReason::SocketError,
    }
}

/// Errors of reading: counted, survived, and kept from spinning.
#[derive(Debug, Default)]
pub(super) struct ReceiveErrors {
    total: u64,
    in_a_row: u32,
}

impl ReceiveErrors {
    /// Counts one; returns whether to stop reading until the socket says anew that it is readable.
    ///
    /// A single error, such as a connection reset on Windows, stands before datagrams that must still be read. One that
    /// comes back with every attempt would keep the task busy for ever.
    pub(super) fn count(&mut self, error: &io::Error) -> bool {
        self.total += 1;
        self.in_a_row += 1;
        let give_up = self.in_a_row >= RECEIVE_ERRORS_IN_A_ROW_MAX;
        if give_up {
            // Once per wake-up at most, and not per error.
            tracing::debug!(%error, total = self.total, "reading keeps failing");
            self.in_a_row = 0;
        }
        give_up
    }

    /// Something was read.
    pub(super) fn clear(&mut self) {
        self.in_a_row = 0;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// Errors of reading in a row before the task waits for the socket again.
pub(super) const RECEIVE_ERRORS_IN_A_ROW_MAX: u32 = 16;

/// The numbers of errors for which the standard library has no kind.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 90;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 97;
    pub(super) const NO_BUFFERS: i32 = 105;
    /// `EACCES`, `ENONET`, `EPROTO`, `EMSGSIZE`, `ENOPROTOOPT`, `EOPNOTSUPP`, `ENETUNREACH`, `ECONNREFUSED`, `EHOSTDOWN`,
    /// `EHOSTUNREACH`.
    pub(super) const HEARSAY: [i32; 10] = [13, 64, 71, 90, 92, 95, 101, 111, 112, 113];
    /// `EIO`, `EINVAL`, `EMSGSIZE`, `EOPNOTSUPP`.
    pub(super) const NO_SEGMENTATION: [i32; 4] = [5, 22, 90, 95];
}

/// As Winsock numbers them.
#[cfg(windows)]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 10_040;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 10_047;
    pub(super) const NO_BUFFERS: i32 = 10_055;
    pub(super) const HEARSAY: [i32; 0] = [];
    pub(super) const NO_SEGMENTATION: [i32; 0] = [];
}

/// As the BSD family numbers them, macOS and iOS included.
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 40;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 47;
    pub(super) const NO_BUFFERS: i32 = 55;
    pub(super) const HEARSAY: [i32; 0] = [];
    pub(super) const NO_SEGMENTATION: [i32; 0] = [];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each error of the table in the documentation of drop reasons is told apart.
    #[test]
    fn errors_have_their_reasons() {
        let os = |number| Failure::of(&io::Error::from_raw_os_error(number));
        let kind = |kind: io::ErrorKind| Failure::of(&kind.into());
        assert_eq!(os(code::MESSAGE_TOO_LONG), Failure::TooLong);
        assert_eq!(os(code::NO_BUFFERS), Failure::NoMemory);
        assert_eq!(os(code::FAMILY_UNSUPPORTED), Failure::Final(DropReason::Unreachable));
        assert_eq!(kind(io::ErrorKind::OutOfMemory), Failure::NoMemory);
        assert_eq!(kind(io::ErrorKind::Interrupted), Failure::Interrupted);
        assert_eq!(kind(io::ErrorKind::WouldBlock), Failure::Full);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), Failure::Final(DropReason::NotPermitted));
        assert_eq!(kind(io::ErrorKind::HostUnreachable), Failure::Final(DropReason::Unreachable));
        assert_eq!(kind(io::ErrorKind::ConnectionRefused), Failure::Final(DropReason::Unreachable));
        assert_eq!(kind(io::ErrorKind::InvalidInput), Failure::Final(DropReason::SocketError));
    }

    /// Goal: the numbers above are those of this system.
    #[cfg(target_os = "linux")]
    #[test]
    fn codes_are_the_systems() {
        let ours = [code::MESSAGE_TOO_LONG, code::FAMILY_UNSUPPORTED, code::NO_BUFFERS];
        assert_eq!(ours, [libc::EMSGSIZE, libc::EAFNOSUPPORT, libc::ENOBUFS]);
        for error in [libc::EPERM, libc::EACCES] {
            assert_eq!(drop_reason(&io::Error::from_raw_os_error(error)), DropReason::NotPermitted);
        }
        for error in [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNREFUSED, libc::EADDRNOTAVAIL] {
            assert_eq!(drop_reason(&io::Error::from_raw_os_error(error)), DropReason::Unreachable);
        }
        assert_eq!(drop_reason(&io::Error::from_raw_os_error(libc::ENOMEM)), DropReason::NoBuffers);
        let of_icmp = [
            libc::EACCES,
            libc::ENONET,
            libc::EPROTO,
            libc::EMSGSIZE,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
            libc::ECONNREFUSED,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
        ];
        assert_eq!(code::HEARSAY, of_icmp);
        assert_eq!(code::NO_SEGMENTATION, [libc::EIO, libc::EINVAL, libc::EMSGSIZE, libc::EOPNOTSUPP]);
    }

    /// Goal: single errors of reading are read past; one that never ends makes the task wait.
    #[test]
    fn lasting_receive_errors_give_up() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let mut errors = ReceiveErrors::default();
        for _ in 0..3 {
            assert!((1..RECEIVE_ERRORS_IN_A_ROW_MAX).all(|_| !errors.count(&reset)));
            errors.clear();
        }
        let give_ups = (0..3 * RECEIVE_ERRORS_IN_A_ROW_MAX).filter(|_| errors.count(&reset)).count();
        assert_eq!(give_ups, 3);
        assert_eq!(errors.total(), u64::from(6 * RECEIVE_ERRORS_IN_A_ROW_MAX - 3));
    }
}
