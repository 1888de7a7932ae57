//! What one member dials to reach another: a port of its own, and the connections through it.

use super::{pump::pump, way::Way};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections at once; who dials beyond waits.
const CONNECTIONS_MAX: usize = 128;
/// Connections that may wait to be accepted while it is open.
const BACKLOG: i32 = 128;
/// One connection fits into a backlog of none. Should a dialler take that place first, the other plug hangs
/// like the diallers after it.
const PLUGS: usize = 2;
/// Plugs that were not accepted yet; cuts that follow each other fast leave some behind.
const PLUGS_MAX: usize = 8;
/// The rest after a connection could not be accepted: this process has too many files open.
const PAUSE: Duration = Duration::from_millis(50);

/// A proxy for what one member dials of another.
#[derive(Debug)]
pub(crate) struct Cable {
    /// Where it is dialled.
    pub(crate) address: SocketAddr,
    /// Where that leads.
    target: SocketAddr,
    /// From the dialler, and back to it.
    there: Arc<Way>,
    back: Arc<Way>,
    live: AtomicUsize,
    resets: watch::Sender<u64>,
    /// Ports of our own connections that were not accepted yet.
    plugs: Mutex<BTreeSet<u16>>,
}

impl Cable {
    /// Listens, and serves on the runtime that this is called on, for as long as that lasts.
    pub(crate) fn lay(target: SocketAddr, there: Arc<Way>, back: Arc<Way>) -> std::io::Result<Arc<Self>> {
        // Any port will do: it is held to the end, so that nobody else is ever given it.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let cable = Arc::new(Self {
            address: listener.local_addr()?,
            target,
            there,
            back,
            live: AtomicUsize::default(),
            resets: watch::Sender::default(),
            plugs: Mutex::default(),
        });
        tokio::spawn(cable.clone().serve(listener));
        Ok(cable)
    }

    /// Connections through it.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Breaks the connections through it; both ends hear of it at once, cut or not. Says how many there were.
    pub(crate) fn reset(&self) -> usize {
        // Counted first: they may be gone before this goes on.
        let live = self.live();
        self.resets.send_modify(|resets| *resets += 1);
        live
    }

    /// Dials that the kernel has not answered: those it drops while this is cut.
    pub(crate) fn hanging(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let plugs = self.plugs();
        dials_unanswered(&table, self.address.port()).filter(|local| !plugs.contains(local)).count()
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        // They keep their ports for as long as these are taken for ours.
        let mut plugs = JoinSet::new();
        loop {
            tokio::select! {
                () = self.cut_off() => self.wall_up(&listener, &mut plugs).await,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((_, peer)) if self.unplug(peer) => if self.plugs().is_empty() {
                        plugs.shutdown().await;
                    },
                    Ok((dialler, _)) => {
                        connections.spawn(self.clone().carry(dialler, self.resets.subscribe()));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.there.is_cut() || self.back.is_cut()
    }

    async fn cut_off(&self) {
        tokio::select! {
            () = self.there.cut_off() => {}
            () = self.back.cut_off() => {}
        }
    }

    fn plugs(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.plugs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was one of our own.
    fn unplug(&self, peer: SocketAddr) -> bool {
        self.plugs().remove(&peer.port())
    }

    /// While either way is cut no handshake is ever complete: who dials must hang, as in a network that
    /// drops. Only the kernel can do that: it drops those who dial while as many as it was told wait to be
    /// accepted.
    async fn wall_up(&self, listener: &TcpListener, plugs: &mut JoinSet<()>) {
        // If it does not work, the diallers are connected, and their bytes are held back all the same.
        let _ = rustix::net::listen(listener, 0);
        if plugs.len() + PLUGS > PLUGS_MAX {
            plugs.shutdown().await;
            self.plugs().clear();
        }
        for _ in 0..PLUGS {
            let Ok(plug) = self.plug() else { continue };
            let address = self.address;
            plugs.spawn(async move {
                let _held = plug.connect(address).await;
                std::future::pending::<()>().await;
            });
        }
        while self.is_cut() {
            self.there.open().await;
            self.back.open().await;
        }
        let _ = rustix::net::listen(listener, BACKLOG);
    }

    fn plug(&self) -> std::io::Result<TcpSocket> {
        let plug = TcpSocket::new_v4()?;
        plug.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        self.plugs().insert(plug.local_addr()?.port());
        Ok(plug)
    }

    async fn carry(self: Arc<Self>, mut dialler: TcpStream, mut resets: watch::Receiver<u64>) {
        let _counted = Counted::new(&self.live);
        let Ok(mut target) = TcpStream::connect(self.target).await else {
            // Nobody is there. It is too late to refuse, so this one breaks.
            let _ = dialler.set_zero_linger();
            return;
        };
        // Without it the bytes arrive just as well.
        let _ = dialler.set_nodelay(true).and(target.set_nodelay(true));
        let reset = {
            let (from_dialler, to_dialler) = dialler.split();
            let (from_target, to_target) = target.split();
            let both = async {
                tokio::join!(
                    pump(from_dialler, to_target, &self.there),
                    pump(from_target, to_dialler, &self.back)
                )
            };
            tokio::select! {
                _ = both => false,
                _ = resets.changed() => true,
            }
        };
        if reset {
            let _ = dialler.set_zero_linger().and(target.set_zero_linger());
            self.there.was_reset();
            self.back.was_reset();
        }
    }
}

/// Counts one more for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Local ports of connections to this port of which the kernel has heard nothing yet, by its own table.
fn dials_unanswered(table: &str, port: u16) -> impl Iterator<Item = u16> {
    /// What the table calls a dial without an answer.
    const SYN_SENT: &str = "02";
    table.lines().skip(1).filter_map(move |line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        let port_of = |it: &str| u16::from_str_radix(it.rsplit_once(':')?.1, 16).ok();
        (state == SYN_SENT && port_of(remote) == Some(port)).then(|| port_of(local)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_dials_are_read_off_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                       0: 0100007F:2329 00000000:0000 0A 00000000:00000000\n\
                       1: 0100007F:A1B2 0100007F:2329 02 00000001:00000000\n\
                       2: 0100007F:A1B3 0100007F:2329 01 00000000:00000000\n\
                       3: 0100007F:A1B4 0100007F:2328 02 00000001:00000000\n";
        assert_eq!(dials_unanswered(table, 0x2329).collect::<Vec<_>>(), [0xA1B2]);
    }
}
