//! Free ports for members that are killed and restarted.

use anyhow::bail;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;

/// What there is when the kernel does not say where its own ports begin.
const EPHEMERAL: u16 = 32_768;
/// Below are ports of well-known services.
const LOWEST: u16 = 10_240;
/// Ports tried for each that is found.
const TRIES: usize = 1_000;

/// Ports that are free now, in no order, all different.
///
/// None is one that the kernel hands to outgoing connections. A dead master's port would else be taken, sooner or
/// later, by one of those that dial it: on loopback a connection may even be answered by itself.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let range = ours();
    let chance = RandomState::new();
    let mut found: Vec<(u16, TcpListener)> = Vec::new();
    for n in 0..count * TRIES {
        if found.len() == count {
            break;
        }
        let width = u64::from(range.end - range.start);
        let port = range.start + u16::try_from(chance.hash_one(n) % width).unwrap_or_default();
        // Held until all are found, so that they differ.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            found.push((port, listener));
        }
    }
    if found.len() < count {
        bail!("fewer than {count} ports of {range:?} are free on 127.0.0.1");
    }
    Ok(found.into_iter().map(|(port, _)| port).collect())
}

/// Ports that the kernel leaves to those who ask for them.
fn ours() -> Range<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    match text.split_whitespace().next().map(str::parse::<u16>) {
        Some(Ok(first)) if first > LOWEST + 1_000 => LOWEST..first,
        // Then all are the kernel's, or it does not say.
        _ => LOWEST..EPHEMERAL,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_are_not_the_kernels() {
        let mut ports = free_ports(16).unwrap();
        let range = ours();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
        let ephemeral = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(!range.contains(&ephemeral), "{ephemeral}");
    }
}
