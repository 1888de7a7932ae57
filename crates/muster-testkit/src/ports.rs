//! Free ports for members that are killed and restarted.

use anyhow::bail;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What there is when the kernel does not say where its own ports begin.
const EPHEMERAL: u16 = 32_768;
/// Below are ports of well-known services.
const LOWEST: u16 = 10_240;
/// Ports tried for each that is found.
const TRIES: usize = 1_000;

/// Ports that no other test is given until this is dropped, also while the member that has one is dead or has not begun.
///
/// Nothing listens on a port meanwhile, so each is told of by a socket in the namespace of abstract names, which is as
/// large as that of the ports (a network namespace) and forgets a name with the process that had it.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<UnixDatagram>,
}

impl Ports {
    /// So many that are free on 127.0.0.1 now, in no order.
    ///
    /// None is one that the kernel hands to outgoing connections. A dead master's port would else be taken, sooner or
    /// later, by one of those that dial it: on loopback a connection may even be answered by itself.
    pub(crate) fn take(&mut self, count: usize) -> anyhow::Result<Vec<u16>> {
        let range = ours();
        let chance = RandomState::new();
        let mut found = Vec::new();
        for n in 0..count * TRIES {
            if found.len() == count {
                break;
            }
            let width = u64::from(range.end - range.start);
            let port = range.start + u16::try_from(chance.hash_one(n) % width).unwrap_or_default();
            let name = SocketAddr::from_abstract_name(format!("muster-test-port-{port}"))?;
            // Told of first: who asks next then finds it told of or in use.
            let Ok(held) = UnixDatagram::bind_addr(&name) else { continue };
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                self.held.push(held);
                found.push(port);
            }
        }
        if found.len() < count {
            bail!("fewer than {count} ports of {range:?} are free on 127.0.0.1");
        }
        Ok(found)
    }
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
        let mut ports = Ports::default().take(16).unwrap();
        let range = ours();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
        let ephemeral = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(!range.contains(&ephemeral), "{ephemeral}");
    }

    #[test]
    fn a_port_is_given_to_one_until_it_is_dropped() {
        let name = |port| SocketAddr::from_abstract_name(format!("muster-test-port-{port}")).unwrap();
        let mut ports = Ports::default();
        let port = ports.take(1).unwrap()[0];
        TcpListener::bind(("127.0.0.1", port)).expect("its member can listen");
        UnixDatagram::bind_addr(&name(port)).expect_err("it is told of");
        drop(ports);
        UnixDatagram::bind_addr(&name(port)).unwrap();
    }
}
