//! What the kernel tells of this process: how many files it may open, and what it dropped at each socket.
//!
//! Both are read from `/proc` and unknown elsewhere.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::args::UsageError;

/// Raises the limit of open files so that this process, or one that it starts, has room for `sockets` beside what it has
/// open anyway. The hard limit is raised as well where that is allowed.
pub(crate) fn allow_open_files(sockets: usize) -> Result<(), UsageError> {
    let needed = (sockets + OTHER_FILES) as u64;
    // Where limits cannot be read or changed, the sockets themselves tell.
    let Ok(allowed) = rlimit::increase_nofile_limit(needed) else { return Ok(()) };
    if allowed >= needed || raise_hard_limit(needed) {
        return Ok(());
    }
    Err(UsageError(format!(
        "{sockets} sockets need {needed} open files, but this process may open {allowed} and may not raise that; \
         run it by 'sudo prlimit --nofile={needed} COMMAND', raise the hard limit for your user \
         ('* hard nofile {needed}' in /etc/security/limits.conf), or ask for less"
    )))
}

#[cfg(unix)]
fn raise_hard_limit(needed: u64) -> bool {
    rlimit::setrlimit(rlimit::Resource::NOFILE, needed, needed).is_ok()
}

#[cfg(not(unix))]
fn raise_hard_limit(_: u64) -> bool {
    false
}

/// How long this process has kept processors busy so far, all threads together. `None` where unknown.
pub(crate) fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name is in parentheses and may contain anything. User and system time are fields 14 and 15 of all.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * CPU_TICK_MILLIS))
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

/// Standard streams, pipes, the server's own sockets, the runtime's.
const OTHER_FILES: usize = 32;

/// The unit of processor times in `/proc`, which Linux keeps at 1/100 s whatever its own clock does.
const CPU_TICK_MILLIS: u64 = 10;
