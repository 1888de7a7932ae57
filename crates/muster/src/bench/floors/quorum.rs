//! A quorum's group commit with nothing around it: what any Raft here costs at least.
//!
//! A leader takes all that waits, up to a limit, sends it to two followers over TCP and to its own log; each writes it over a
//! preallocated file and syncs; when two of the three have it, every client of the round is answered, and the next round
//! begins. Nothing is pipelined. Clients have a connection each, and one request on its way.

use super::{Done, disk::Preallocated};
use crate::bench::report::{record, times};
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    rc::Rc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
    runtime::{Builder, Runtime},
    sync::{Notify, mpsc, oneshot},
    task::LocalSet,
};

/// A log's length.
const LOG_BYTES: u64 = 16 << 20;
/// What goes into one round, but for one request that is longer by itself.
const ROUND_BYTES: usize = 1 << 20;
/// Rounds that the slowest replica may be behind.
const BEHIND: usize = 4;
const REPLICAS: usize = 3;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Clients, each with one request on its way.
    pub(crate) clients: usize,
    /// Records in a request.
    pub(crate) records: usize,
}

type Thread = JoinHandle<io::Result<()>>;

/// Commits for so long, with a fifth of it as warm-up; counts records.
pub(super) fn measure(dir: &Path, load: Load, record_bytes: usize, each: Duration) -> io::Result<Done> {
    let mut threads: Vec<Thread> = Vec::new();
    let mut logs = Vec::new();
    for n in 0..REPLICAS {
        logs.push(Preallocated::new(&dir.join(format!("log-{n}")), LOG_BYTES)?);
    }
    let own = logs.remove(0);
    let mut followers = Vec::new();
    for log in logs {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let to = TcpStream::connect(listener.local_addr()?)?;
        to.set_nodelay(true)?;
        to.set_nonblocking(true)?;
        followers.push(to);
        threads.push(thread::spawn(move || follow(listener.accept()?.0, log)));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let leader = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    threads.push(thread::spawn(move || lead(listener, own, followers, stopped)));
    let asked = ask(leader, load, record_bytes, each);
    drop(stop); // the leader ends, and with it its followers' streams
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a replica panicked"))??;
    }
    for n in 0..REPLICAS {
        std::fs::remove_file(dir.join(format!("log-{n}")))?;
    }
    let (took, secs) = asked?;
    Ok(Done { per_second: took.len() as f64 * load.records as f64 / secs, took })
}

/// A follower, until its leader closes the stream. The leader leaves with acknowledgements unread.
fn follow(leader: TcpStream, log: Preallocated) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match replica(leader, log) {
        Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) => Ok(()),
        other => other,
    }
}

/// A length and as many bytes come, a byte goes when they are on its disk.
fn replica(mut leader: TcpStream, mut log: Preallocated) -> io::Result<()> {
    leader.set_nodelay(true)?;
    let mut length = [0; 4];
    let mut round = Vec::new();
    loop {
        leader.read_exact(&mut length)?;
        round.resize(u32::from_be_bytes(length) as usize, 0);
        leader.read_exact(&mut round)?;
        log.append(&round)?;
        leader.write_all(&[1])?;
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What waits for its round.
#[derive(Default)]
struct Queue {
    waiting: RefCell<Vec<(Vec<u8>, oneshot::Sender<()>)>>,
    some: Notify,
}

fn lead(
    listener: TcpListener,
    mut own: Preallocated,
    followers: Vec<TcpStream>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let (acked, acks) = mpsc::channel(64);
    let (to_own, mut rounds) = mpsc::channel::<(u64, Bytes)>(BEHIND);
    let own_acked = acked.clone();
    let own_log = thread::spawn(move || {
        while let Some((n, round)) = rounds.blocking_recv() {
            own.append(&round)?;
            let _ = own_acked.blocking_send(n); // the leader may have ended
        }
        io::Result::Ok(())
    });
    let local = LocalSet::new();
    let done = local.block_on(&runtime()?, async move {
        let listener = net::TcpListener::from_std(listener)?;
        let queue = Rc::new(Queue::default());
        let mut replicas = vec![to_own];
        for follower in followers {
            let (to, rounds) = mpsc::channel(BEHIND);
            replicas.push(to);
            tokio::task::spawn_local(replicate(net::TcpStream::from_std(follower)?, rounds, acked.clone()));
        }
        let served = queue.clone();
        tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(client, served.clone()));
            }
        });
        tokio::select! {
            done = commit(&queue, &replicas, acks) => done,
            _ = stopped => Ok(()),
        }
    });
    drop(local); // ends what still reads, so that the log's channel closes
    own_log.join().map_err(|_| io::Error::other("a log panicked"))??;
    done
}

/// Round after round.
async fn commit(
    queue: &Queue,
    replicas: &[mpsc::Sender<(u64, Bytes)>],
    mut acks: mpsc::Receiver<u64>,
) -> io::Result<()> {
    let broken = || io::Error::other("a replica ended");
    for n in 1.. {
        while queue.waiting.borrow().is_empty() {
            queue.some.notified().await;
        }
        let mut round = Vec::with_capacity(64 << 10);
        let mut answers = Vec::new();
        {
            let mut waiting = queue.waiting.borrow_mut();
            let mut taken = 0;
            while let Some((bytes, _)) = waiting.get(taken)
                && (taken == 0 || round.len() + bytes.len() <= ROUND_BYTES)
            {
                round.extend_from_slice(bytes);
                taken += 1;
            }
            answers.extend(waiting.drain(..taken).map(|(_, answer)| answer));
        }
        let round = Bytes::from(round);
        for replica in replicas {
            replica.send((n, round.clone())).await.map_err(|_| broken())?;
        }
        let mut on_disks = 0;
        while on_disks <= REPLICAS / 2 {
            if acks.recv().await.ok_or_else(broken)? == n {
                on_disks += 1;
            }
        }
        for answer in answers {
            let _ = answer.send(()); // a client may be gone
        }
    }
    Ok(())
}

async fn replicate(
    mut follower: net::TcpStream,
    mut rounds: mpsc::Receiver<(u64, Bytes)>,
    acked: mpsc::Sender<u64>,
) -> io::Result<()> {
    while let Some((n, round)) = rounds.recv().await {
        let mut frame = Vec::with_capacity(4 + round.len());
        frame.extend_from_slice(&(round.len() as u32).to_be_bytes());
        frame.extend_from_slice(&round);
        follower.write_all(&frame).await?;
        follower.read_exact(&mut [0]).await?;
        let _ = acked.send(n).await; // the leader may have ended
    }
    Ok(())
}

/// A client's side of the leader: ends with its connection.
async fn serve(mut client: net::TcpStream, queue: Rc<Queue>) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let length = client.read_u32().await? as usize;
        let mut request = vec![0; length];
        client.read_exact(&mut request).await?;
        let (answer, answered) = oneshot::channel();
        queue.waiting.borrow_mut().push((request, answer));
        queue.some.notify_one();
        if answered.await.is_err() {
            return Ok(());
        }
        client.write_all(&[1]).await?;
    }
}

/// All clients. How long requests took, and in how many seconds they were made.
fn ask(
    leader: SocketAddr,
    load: Load,
    record_bytes: usize,
    each: Duration,
) -> io::Result<(Histogram<u64>, f64)> {
    let local = LocalSet::new();
    local.block_on(&runtime()?, async move {
        let bytes = load.records * record_bytes;
        let mut request = (bytes as u32).to_be_bytes().to_vec();
        request.resize(4 + bytes, 7);
        let (request, took) = (Rc::new(request), Rc::new(RefCell::new(times())));
        let mut sockets = Vec::new();
        for _ in 0..load.clients {
            let socket = net::TcpStream::connect(leader).await?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        // What comes before is warm-up.
        let sockets = all_ask(sockets, &request, None, each / 5).await?;
        let from = Instant::now();
        all_ask(sockets, &request, Some(&took), each - each / 5).await?;
        Ok((took.replace(times()), from.elapsed().as_secs_f64()))
    })
}

/// All at once, for so long, and each at least once.
async fn all_ask(
    sockets: Vec<net::TcpStream>,
    request: &Rc<Vec<u8>>,
    took: Option<&Rc<RefCell<Histogram<u64>>>>,
    each: Duration,
) -> io::Result<Vec<net::TcpStream>> {
    let until = Instant::now() + each;
    let asking = sockets
        .into_iter()
        .map(|socket| tokio::task::spawn_local(client(socket, request.clone(), took.cloned(), until)));
    let mut back = Vec::new();
    for client in asking.collect::<Vec<_>>() {
        back.push(client.await.map_err(io::Error::other)??);
    }
    Ok(back)
}

async fn client(
    mut leader: net::TcpStream,
    request: Rc<Vec<u8>>,
    took: Option<Rc<RefCell<Histogram<u64>>>>,
    until: Instant,
) -> io::Result<net::TcpStream> {
    loop {
        let at = Instant::now();
        leader.write_all(&request).await?;
        leader.read_exact(&mut [0]).await?;
        if let Some(took) = &took {
            record(&mut took.borrow_mut(), at.elapsed());
        }
        if Instant::now() >= until {
            return Ok(leader);
        }
    }
}
