//! Cables between masters that can be cut: what is on its way then waits until they are whole again, and nobody is told.

use crate::cluster::free_ports;
use anyhow::Context;
use std::collections::HashMap;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

const CHUNK_BYTES: usize = 64 << 10;

/// One for each direction of dialling between any two.
pub(crate) struct Cables {
    addresses: HashMap<(usize, usize), String>,
    /// Whether each master is cut off.
    cut: Vec<watch::Sender<bool>>,
    /// They carry until this is dropped.
    _carrying: JoinSet<()>,
}

/// Whether one of its two ends is cut off.
type Cut = [watch::Receiver<bool>; 2];

impl Cables {
    /// Between all masters that listen at these addresses.
    pub(crate) async fn lay(masters: &[String]) -> anyhow::Result<Self> {
        let cut: Vec<_> = masters.iter().map(|_| watch::Sender::new(false)).collect();
        let mut ports = free_ports(masters.len() * masters.len())?.into_iter();
        let (mut addresses, mut carrying) = (HashMap::new(), JoinSet::new());
        for from in 0..masters.len() {
            for to in (0..masters.len()).filter(|to| *to != from) {
                let address = format!("127.0.0.1:{}", ports.next().context("there is no free port")?);
                let listener = TcpListener::bind(&address).await.context("cannot lay a cable")?;
                let ends = [cut[from].subscribe(), cut[to].subscribe()];
                carrying.spawn(accept(listener, masters[to].clone(), ends));
                addresses.insert((from, to), address);
            }
        }
        Ok(Self { addresses, cut, _carrying: carrying })
    }

    /// Where one master dials another.
    pub(crate) fn address(&self, from: usize, to: usize) -> Option<&str> {
        self.addresses.get(&(from, to)).map(String::as_str)
    }

    /// Cuts a master off from all others, or heals that.
    pub(crate) fn isolate(&self, master: usize, is_cut: bool) {
        self.cut[master].send_replace(is_cut);
    }
}

async fn accept(listener: TcpListener, target: String, mut cut: Cut) {
    let mut open = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        if !whole(&mut cut).await {
            return;
        }
        open.spawn(carry(near, target.clone(), cut.clone()));
    }
}

/// Waits until both ends are there; false when nobody will tell any more.
async fn whole(cut: &mut Cut) -> bool {
    loop {
        for end in cut.iter_mut() {
            if end.wait_for(|is_cut| !is_cut).await.is_err() {
                return false;
            }
        }
        if cut.iter().all(|end| !*end.borrow()) {
            return true;
        }
    }
}

async fn carry(near: TcpStream, target: String, cut: Cut) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // When one direction ends so does the other, as when a process dies.
    tokio::select! {
        () = pump(near_in, far_out, cut.clone()) => {}
        () = pump(far_in, near_out, cut) => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut cut: Cut) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if !whole(&mut cut).await || to.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
