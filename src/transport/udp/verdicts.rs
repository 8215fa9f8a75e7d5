//! What the kernel's answers mean.
//!
//! Owns: the loop from transmits to verdicts, which resumes after partial results, and the translation of errors.
//! Never does: system calls. The loop takes them as a function, so that tests script the kernel.

use std::io;

use tickcast_components::DropReason;

use super::super::{Transmit, Verdict};

/// Pushes one verdict per transmit, in order; returns how often `kernel` was called.
///
/// `kernel` is given all that is left and sends as many of the first as it likes in one system call: `Ok` is how many,
/// at least one; `Err` is about the very first, and none was sent. So after a partial result the error, if it lasts,
/// shows up again as that of the first.
///
/// An error is taken as that of the destination it was met at. It could belong to another one, as an ICMP error that
/// waited in the socket, only with `IP_RECVERR` or on a connected socket; these are neither.
pub(super) fn settle(
    transmits: &[Transmit<'_>],
    verdicts: &mut Vec<Verdict>,
    mut kernel: impl FnMut(&[Transmit<'_>]) -> io::Result<usize>,
) -> usize {
    let mut rest = transmits;
    let mut calls = 0;
    let mut interruptions = 0;
    while !rest.is_empty() {
        calls += 1;
        let (settled, verdict) = match kernel(rest) {
            // No kernel answers so. If one did, to take it for an error keeps the loop finite.
            Ok(0) => (1, Verdict::Failed(DropReason::SocketError)),
            Ok(sent) => (sent.min(rest.len()), Verdict::Sent),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && interruptions < INTERRUPTIONS_MAX => {
                interruptions += 1;
                continue;
            }
            // One queue serves all destinations: when it is full for one, it is for all.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                (rest.len(), Verdict::Blocked)
            }
            Err(error) => (1, Verdict::Failed(drop_reason(&error))),
        };
        interruptions = 0;
        verdicts.extend(std::iter::repeat_n(verdict, settled));
        rest = &rest[settled..];
    }
    calls
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

/// Signals in a row that may interrupt one call; after that the rest counts as blocked and is tried again later.
pub(super) const INTERRUPTIONS_MAX: u32 = 16;

/// Errors of reading in a row before the task waits for the socket again.
pub(super) const RECEIVE_ERRORS_IN_A_ROW_MAX: u32 = 16;

/// The numbers of errors for which the standard library has no kind.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 90;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 97;
    pub(super) const NO_BUFFERS: i32 = 105;
}

/// As Winsock numbers them.
#[cfg(windows)]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 10_040;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 10_047;
    pub(super) const NO_BUFFERS: i32 = 10_055;
}

/// As the BSD family numbers them, macOS and iOS included.
#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
mod code {
    pub(super) const MESSAGE_TOO_LONG: i32 = 40;
    pub(super) const FAMILY_UNSUPPORTED: i32 = 47;
    pub(super) const NO_BUFFERS: i32 = 55;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Settles `count` transmits to slots 0, 1, … with a kernel that answers by `script`; returns the verdicts, how
    /// often the kernel was called, and at which slot each call began.
    fn scripted(count: u32, script: impl IntoIterator<Item = io::Result<usize>>) -> (Vec<Verdict>, usize, Vec<u32>) {
        let addr = "127.0.0.1:9".parse().unwrap();
        let transmits: Vec<_> = (0..count).map(|slot| Transmit { slot, addr, parts: &[], bytes: 0 }).collect();
        let mut script: VecDeque<_> = script.into_iter().collect();
        let (mut verdicts, mut began) = (Vec::new(), Vec::new());
        let calls = settle(&transmits, &mut verdicts, |rest| {
            began.push(rest[0].slot);
            script.pop_front().expect("the kernel is called more often than scripted")
        });
        assert!(script.is_empty(), "the kernel is called less often than scripted");
        assert_eq!(verdicts.len(), transmits.len(), "one verdict for each transmit");
        (verdicts, calls, began)
    }

    fn os(error: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(error))
    }

    fn kind(kind: io::ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    /// Goal: a partial result is resumed at the first that was not sent; none is skipped or sent twice.
    #[test]
    fn partial_results_are_resumed() {
        let (verdicts, calls, began) = scripted(10, [Ok(4), Ok(1), Ok(5)]);
        assert_eq!(verdicts, [Verdict::Sent; 10]);
        assert_eq!((calls, began), (3, vec![0, 4, 5]));
    }

    /// Goal: when the socket is full in the middle, all from there on are blocked and the kernel is left alone.
    #[test]
    fn a_full_socket_blocks_the_rest() {
        let (verdicts, calls, _) = scripted(5, [Ok(2), kind(io::ErrorKind::WouldBlock)]);
        assert_eq!(verdicts[..2], [Verdict::Sent; 2]);
        assert_eq!(verdicts[2..], [Verdict::Blocked; 3]);
        assert_eq!(calls, 2);
    }

    /// Goal: a signal costs a retry and nothing else, and a storm of signals cannot hold the task: the rest is blocked.
    #[test]
    fn interruptions_are_retried_within_bounds() {
        let (verdicts, _, began) = scripted(3, [Ok(1), kind(io::ErrorKind::Interrupted), Ok(2)]);
        assert_eq!(verdicts, [Verdict::Sent; 3]);
        assert_eq!(began, [0, 1, 1]);

        let storm = (0..=INTERRUPTIONS_MAX).map(|_| kind(io::ErrorKind::Interrupted));
        assert_eq!(scripted(2, storm).0, [Verdict::Blocked; 2]);
    }

    /// Goal: an error is the verdict of the transmit it was met at alone, also for the first and the last one.
    #[test]
    fn a_failure_concerns_one_transmit() {
        let denied = || kind(io::ErrorKind::PermissionDenied);
        let failed = Verdict::Failed(DropReason::NotPermitted);
        let (verdicts, calls, began) = scripted(6, [denied(), Ok(2), denied(), Ok(1), denied()]);
        assert_eq!(verdicts, [failed, Verdict::Sent, Verdict::Sent, failed, Verdict::Sent, failed]);
        assert_eq!((calls, began), (5, vec![0, 1, 3, 4, 5]));
    }

    /// Goal: nothing to send asks the kernel nothing.
    #[test]
    fn no_transmits_no_calls() {
        assert_eq!(scripted(0, []).1, 0);
    }

    /// Goal: each error of the table in the documentation of drop reasons is told apart.
    #[test]
    fn errors_have_their_reasons() {
        let reason = |answer| match scripted(1, [answer]).0[0] {
            Verdict::Failed(reason) => reason,
            verdict => panic!("{verdict:?}"),
        };
        assert_eq!(reason(os(code::MESSAGE_TOO_LONG)), DropReason::TooLarge);
        assert_eq!(reason(os(code::NO_BUFFERS)), DropReason::NoBuffers);
        assert_eq!(reason(os(code::FAMILY_UNSUPPORTED)), DropReason::Unreachable);
        assert_eq!(reason(kind(io::ErrorKind::OutOfMemory)), DropReason::NoBuffers);
        assert_eq!(reason(kind(io::ErrorKind::PermissionDenied)), DropReason::NotPermitted);
        assert_eq!(reason(kind(io::ErrorKind::HostUnreachable)), DropReason::Unreachable);
        assert_eq!(reason(kind(io::ErrorKind::ConnectionRefused)), DropReason::Unreachable);
        assert_eq!(reason(kind(io::ErrorKind::InvalidInput)), DropReason::SocketError);
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
