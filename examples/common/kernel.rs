//! What the kernel tells of this process: how many files it may open, and what it dropped at each socket.
//!
//! Both are read from `/proc` and unknown elsewhere.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::args::UsageError;

/// Refuses to start if this process may not open `sockets` beside what it has open anyway.
pub(crate) fn check_open_files(sockets: usize) -> Result<(), UsageError> {
    let needed = sockets + OTHER_FILES;
    match open_files_max() {
        Some(allowed) if allowed < needed => Err(UsageError(format!(
            "{sockets} sockets need {needed} open files, but this process may open {allowed}; \
             raise the limit ('ulimit -n {needed}') or ask for less"
        ))),
        _ => Ok(()),
    }
}

/// Datagrams that the kernel dropped at each UDP socket of this machine, by local address. `None` where unknown.
///
/// The kernel writes the address as 32-bit words in its own byte order, and the drops in the last column.
pub(crate) fn udp_drops() -> Option<HashMap<SocketAddr, u64>> {
    let v4 = fs::read_to_string("/proc/net/udp").ok()?;
    // Absent where IPv6 is.
    let v6 = fs::read_to_string("/proc/net/udp6").unwrap_or_default();
    let lines = v4.lines().skip(1).chain(v6.lines().skip(1));
    let mut drops = HashMap::new();
    for (addr, count) in lines.filter_map(socket_line) {
        // A server may have several sockets on one address.
        *drops.entry(addr).or_default() += count;
    }
    Some(drops)
}

/// Datagrams that the kernel dropped at the server at `addr`, of which the engine has counted `counted` so far.
///
/// The engine learns of drops from the next datagram that is not dropped, so it misses those at the very end.
pub(crate) fn server_drops(addr: SocketAddr, counted: u64) -> u64 {
    udp_drops().and_then(|drops| drops.get(&addr).copied()).map_or(counted, |drops| drops.max(counted))
}

fn socket_line(line: &str) -> Option<(SocketAddr, u64)> {
    let (ip, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = if ip.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let words = [word(0)?, word(8)?, word(16)?, word(24)?];
        let octets: [u8; 16] = words.concat().try_into().ok()?;
        Ipv6Addr::from(octets).into()
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip, port), line.split_whitespace().last()?.parse().ok()?))
}

fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Standard streams, pipes, the server's own sockets, the runtime's.
const OTHER_FILES: usize = 32;
