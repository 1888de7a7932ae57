//! A wire between two replicas that can be cut: what was on it is gone, and nothing new connects. Or it stalls: what was
//! connected stays so, and nothing gets through.

use std::sync::{Arc, Mutex};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// One direction of dialling: from one replica to another.
#[derive(Clone)]
pub struct Wire {
    pub address: String,
    pub state: Arc<Mutex<State>>,
    pub accept: Arc<AbortHandle>,
}

#[derive(Default)]
pub struct State {
    cut: bool,
    /// How often it was dialled.
    pub dials: u64,
    pub stalled: watch::Sender<bool>,
    open: JoinSet<()>,
}

impl Wire {
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Arc<Mutex<State>> = Arc::default();
        let task = tokio::spawn(accept(listener, target, state.clone()));
        Self { address, state, accept: Arc::new(task.abort_handle()) }
    }

    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        state.open.abort_all();
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().cut = false;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if Arc::strong_count(&self.accept) == 1 {
            self.accept.abort();
        }
    }
}

async fn accept(listener: TcpListener, target: String, state: Arc<Mutex<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let target = target.clone();
        let mut state = state.lock().unwrap();
        state.dials += 1;
        if !state.cut {
            let stalled = state.stalled.subscribe();
            state.open.spawn(carry(near, target, stalled));
        }
    }
}

async fn carry(mut near: TcpStream, target: String, mut stalled: watch::Receiver<bool>) {
    near.set_nodelay(true).ok();
    if let Ok(mut far) = TcpStream::connect(target).await {
        far.set_nodelay(true).ok();
        let is_stalled = tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
            stalled = stalled.wait_for(|stalled| *stalled) => stalled.is_ok(),
        };
        if is_stalled {
            std::future::pending::<()>().await;
        }
    }
}
