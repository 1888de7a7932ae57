//! Hosts of their own for members: network namespaces, joined by a bridge in the namespace of this process.
//!
//! All of it lies in namespaces that this program moved into first ([`enter`]), so that the machine's own network
//! is never touched, and all of it goes away with the last process in them.

mod switchboard;
mod weather;

use crate::ports::Ports;
use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
pub(crate) use switchboard::{Link, Switchboard};
pub use weather::{Packets, Storm, Weather, weather_missing};

/// The network namespace that this program came from.
const OUTSIDE: &str = "MUSTER_OUTSIDE_NAMESPACE";
/// Where named namespaces are.
const NAMED: &str = "/run/netns";
/// The last number of this process's own address on the bridge.
const OWN: u8 = 254;
/// The tools that it takes.
const TOOLS: [&str; 7] = ["unshare", "nsenter", "mount", "ip", "nft", "ss", "tc"];
/// What is done in the new namespaces before the program begins again: named namespaces are this program's own.
const PREPARE: &str =
    r#"mkdir -p /run/netns && mount -t tmpfs muster-hosts /run/netns && ip link set lo up && exec "$0" "$@""#;

/// Clusters of this process that had hosts; each has a network of its own.
static NETWORKS: AtomicU8 = AtomicU8::new(0);

/// What this machine lacks for [`Plan::hosts`](crate::Plan::hosts); nothing if it lacks nothing.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("members on hosts of their own take root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let lost: Vec<_> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !lost.is_empty() {
        return Some(format!("there is no {}: install util-linux, iproute2 and nftables", lost.join(", ")));
    }
    let tried = Command::new("unshare").args(["--mount", "--net", "true"]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Some(format!("this machine lets nobody have network namespaces: {said}"))
        }
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// Moves this program into network and mount namespaces of its own, by beginning it again with the same arguments.
/// Call it first in `main`, before there are threads or files. It comes back only in the new namespaces, at once
/// when the program is there already, and when that cannot be done.
pub fn enter() -> anyhow::Result<()> {
    if is_own()? {
        return Ok(());
    }
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "--", "sh", "-c", PREPARE])
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env(OUTSIDE, current()?)
        .exec();
    Err(error).context("cannot begin again in namespaces of its own")
}

fn current() -> anyhow::Result<PathBuf> {
    std::fs::read_link("/proc/self/ns/net").context("cannot tell this process's network namespace")
}

/// Whether this process is in a namespace that [`enter`] made.
fn is_own() -> anyhow::Result<bool> {
    match std::env::var_os(OUTSIDE) {
        Some(outside) => Ok(current()?.as_os_str() != outside),
        None => Ok(false),
    }
}

/// The hosts of a cluster.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Number of the network: its third byte.
    network: u8,
    addresses: BTreeMap<String, Ipv4Addr>,
    pub(crate) board: Switchboard,
    /// Connections that were reset, by pair.
    resets: Mutex<BTreeMap<(String, String), u64>>,
}

impl Hosts {
    /// A host for each of these, all joined.
    pub(crate) fn new(names: &[String]) -> anyhow::Result<Self> {
        if !is_own()? {
            bail!(
                "this process is in the machine's own network namespace, where no hosts are made: call \
                 muster_testkit::hosts::enter() first in main"
            );
        }
        let network = NETWORKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
        let network =
            network.ok().context("this process has had 255 clusters with hosts: begin another")? + 1;
        let address = |i: usize| u8::try_from(i + 1).map(|last| Ipv4Addr::new(10, 77, network, last));
        let mut addresses = BTreeMap::new();
        for (i, name) in names.iter().enumerate() {
            addresses.insert(name.clone(), address(i)?);
        }
        if addresses.len() >= usize::from(OWN) {
            bail!("{} members are too many for one network", addresses.len());
        }
        let board = Switchboard::new(network);
        let hosts = Self { network, addresses, board, resets: Mutex::default() };
        // From here on dropping it undoes what was done.
        hosts.lay().context("cannot make hosts")?;
        Ok(hosts)
    }

    fn lay(&self) -> anyhow::Result<()> {
        let bridge = self.bridge();
        let own = Ipv4Addr::new(10, 77, self.network, OWN);
        let mut outside =
            format!("link add {bridge} type bridge\naddr add {own}/24 dev {bridge}\nlink set {bridge} up\n");
        for name in self.addresses.keys() {
            let (host, plug) = (self.namespace(name), self.plug(name));
            outside += &format!(
                "netns add {host}\nlink add {plug} type veth peer name eth0 netns {host}\nlink set {plug} master \
                 {bridge} up\n"
            );
        }
        run("ip", &["-batch", "-"], &outside)?;
        for (name, address) in &self.addresses {
            let inside = format!("addr add {address}/24 dev eth0\nlink set eth0 up\nlink set lo up\n");
            self.run_at(name, &["ip", "-batch", "-"], &inside)?;
        }
        self.board.install(self.addresses.values().copied())
    }

    /// An address with a free port for each of these hosts.
    pub(crate) fn listeners(&self, names: &[String], ports: &mut Ports) -> anyhow::Result<Vec<SocketAddr>> {
        let ports = ports.take(names.len())?;
        names.iter().zip(ports).map(|(name, port)| Ok((self.address(name)?, port).into())).collect()
    }

    pub(crate) fn address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        self.addresses.get(name).copied().with_context(|| format!("{name} has no host"))
    }

    /// The one direction from one host to another.
    pub(crate) fn link(&self, from: &str, to: &str) -> anyhow::Result<Link> {
        Ok((self.address(from)?, self.address(to)?))
    }

    fn bridge(&self) -> String {
        format!("hub{}", self.network)
    }

    fn namespace(&self, name: &str) -> String {
        format!("h{}{name}", self.network)
    }

    /// The near end of a host's cable.
    pub(crate) fn plug(&self, name: &str) -> String {
        format!("v{}{name}", self.network)
    }

    fn path(&self, name: &str) -> String {
        format!("{NAMED}/{}", self.namespace(name))
    }

    /// What a command begins with that is to run on a host.
    pub(crate) fn before(&self, name: &str) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.path(name)), "--".into()]
    }

    /// Runs a command on a host, and gives what it printed.
    pub(crate) fn run_at(&self, name: &str, command: &[&str], input: &str) -> anyhow::Result<String> {
        let net = format!("--net={}", self.path(name));
        let arguments = [&[net.as_str(), "--"], command].concat();
        run("nsenter", &arguments, input)
    }

    /// Does something on a thread that is on a host; threads that it starts are there, too.
    pub(crate) fn within<T: Send>(&self, name: &str, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        self.address(name)?;
        let namespace = File::open(self.path(name)).with_context(|| format!("the host of {name} is gone"))?;
        let there = || -> anyhow::Result<T> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(what())
        };
        let done = std::thread::scope(|scope| scope.spawn(there).join());
        done.map_err(|_| anyhow::anyhow!("what was to be done on the host of {name} panicked"))?
    }

    /// Connections of one host to another in this state.
    pub(crate) fn sockets(&self, from: &str, to: &str, state: &str) -> anyhow::Result<usize> {
        let to = self.address(to)?.to_string();
        Ok(self.run_at(from, &["ss", "-Htn", "state", state, "dst", &to], "")?.lines().count())
    }

    /// Ends all connections between two; says how many.
    pub(crate) fn reset(&self, a: &str, b: &str) -> anyhow::Result<usize> {
        let to = self.address(b)?.to_string();
        let ended = self.run_at(a, &["ss", "-HKtn", "state", "connected", "dst", &to], "")?.lines().count();
        let mut resets = self.resets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (from, to) in [(a, b), (b, a)] {
            *resets.entry((from.into(), to.into())).or_default() += ended as u64;
        }
        Ok(ended)
    }

    /// How many connections between two were ended.
    pub(crate) fn resets(&self, from: &str, to: &str) -> u64 {
        let resets = self.resets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        resets.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Deleting a namespace deletes its cable, too. What is not there need not go.
        for name in self.addresses.keys() {
            let _ = run("ip", &["netns", "del", &self.namespace(name)], "");
        }
        let _ = run("ip", &["link", "del", &self.bridge()], "");
        self.board.remove();
    }
}

/// Runs a tool, and gives what it printed.
pub(crate) fn run(tool: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {tool}"))?;
    // It reads all before it says much.
    child.stdin.take().context("no way in")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{tool} {} failed: {said}", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_hosts_are_made_in_the_machines_own_namespace() {
        assert!(!is_own().unwrap());
        let said = Hosts::new(&["m1".into()]).unwrap_err().to_string();
        assert!(said.contains("muster_testkit::hosts::enter()"), "{said}");
    }
}
