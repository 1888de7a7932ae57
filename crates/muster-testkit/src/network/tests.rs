//! What a cut, a delay and a reset do to a connection.

use super::*;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Two masters' ports, and an agent that dials both.
struct Bench {
    network: Network,
    m1: TcpListener,
    _m2: TcpListener,
}

impl Bench {
    async fn new() -> Self {
        let listener = async || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (m1, m2) = (listener().await, listener().await);
        let masters = [("m1".into(), m1.local_addr().unwrap()), ("m2".into(), m2.local_addr().unwrap())];
        Self { network: Network::new(&masters, &["a1".into()]).unwrap(), m1, _m2: m2 }
    }

    fn address(&self) -> SocketAddr {
        self.network.address("a1", "m1").unwrap()
    }

    fn up(&self) -> &Way {
        self.network.way("a1", "m1").unwrap()
    }

    fn down(&self) -> &Way {
        self.network.way("m1", "a1").unwrap()
    }

    /// The two ends of a connection from the agent to the first master.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let (agent, master) = tokio::join!(TcpStream::connect(self.address()), self.m1.accept());
        (agent.unwrap(), master.unwrap().0)
    }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "never");
        tokio::task::yield_now().await;
    }
}

async fn read(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

fn hears_nothing(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn bytes_pass_and_are_counted_each_way() {
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    agent.write_all(b"hello").await.unwrap();
    master.write_all(b"welcome").await.unwrap();
    assert_eq!((read(&mut master, 5).await, read(&mut agent, 7).await), (b"hello".into(), b"welcome".into()));
    eventually(|| bench.up().traffic().carried == 5 && bench.down().traffic().carried == 7).await;
    assert_eq!(bench.network.cable("a1", "m1").unwrap().live(), 1);
    drop(agent);
    assert_eq!(master.read(&mut [0]).await.unwrap(), 0);
    drop(master);
    eventually(|| bench.network.cable("a1", "m1").unwrap().live() == 0).await;
    assert!(bench.network.way("a1", "a2").is_err() && bench.network.address("m1", "a1").is_none());
}

#[tokio::test]
async fn one_direction_stalls_and_the_other_goes_on() {
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    bench.up().cut();
    agent.write_all(b"up").await.unwrap();
    master.write_all(b"down").await.unwrap();
    assert_eq!(read(&mut agent, 4).await, b"down");
    eventually(|| bench.up().traffic().held == 2).await;
    assert!(hears_nothing(&master) && bench.down().traffic().held == 0);
    // Cut twice, it heals when both are over.
    bench.up().cut();
    bench.up().heal();
    assert!(bench.up().is_cut());
    bench.up().heal();
    assert_eq!(read(&mut master, 2).await, b"up");
}

#[tokio::test]
async fn the_end_of_a_connection_is_not_heard_through_a_cut() {
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    bench.up().cut();
    agent.write_all(b"last words").await.unwrap();
    drop(agent);
    eventually(|| bench.up().traffic().held == 10).await;
    assert!(hears_nothing(&master));
    bench.up().heal();
    assert_eq!(read(&mut master, 10).await, b"last words");
    assert_eq!(master.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_dial_hangs_while_either_direction_is_cut() {
    let bench = Bench::new().await;
    let cable = bench.network.cable("a1", "m1").unwrap();
    for way in [bench.up(), bench.down()] {
        way.cut();
        let mut dial = tokio::spawn(TcpStream::connect(bench.address()));
        eventually(|| {
            // Who dialled before the cable heard of the cut is connected.
            if dial.is_finished() {
                dial = tokio::spawn(TcpStream::connect(bench.address()));
            }
            cable.hanging() > 0
        })
        .await;
        way.heal();
        let mut agent = dial.await.unwrap().unwrap();
        agent.write_all(b"!").await.unwrap();
        // The abandoned ones come through as well, and end.
        let mut heard = [0];
        while heard != *b"!" {
            let mut master = bench.m1.accept().await.unwrap().0;
            let _ = master.read(&mut heard).await;
        }
    }
}

#[tokio::test]
async fn what_a_cut_holds_back_is_bounded_and_arrives_in_order() {
    const BYTES: usize = 64 << 20;
    const BLOCK: usize = 64 << 10;
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    bench.up().cut();
    let written = tokio::spawn(async move {
        for n in 0..BYTES / BLOCK {
            let block = [n as u8; BLOCK];
            agent.write_all(&block).await.unwrap();
        }
    });
    eventually(|| bench.up().traffic().held > 512 << 10).await;
    assert!(!written.is_finished() && hears_nothing(&master));
    bench.up().heal();
    let held = bench.up().traffic().held;
    assert!(held < 2 << 20, "{held}");
    for n in 0..BYTES / BLOCK {
        let block = read(&mut master, BLOCK).await;
        assert!(block.iter().all(|byte| *byte == n as u8), "block {n}");
    }
    written.await.unwrap();
}

#[tokio::test]
async fn late_bytes_take_their_time_and_keep_their_order() {
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    let (latency, jitter) = (Duration::from_millis(30), Duration::from_millis(30));
    bench.up().delay(latency, jitter);
    let began = Instant::now();
    for n in 0..100 {
        agent.write_all(&[n]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut master, 100).await, (0..100).collect::<Vec<u8>>());
    assert!(began.elapsed() >= latency);
    assert_eq!(bench.up().traffic().delayed, 100);
    bench.up().hurry(latency, jitter);
    agent.write_all(b"!").await.unwrap();
    read(&mut master, 1).await;
    assert_eq!(bench.up().traffic().delayed, 100);
}

#[tokio::test]
async fn a_reset_is_heard_at_both_ends_also_through_a_cut() {
    let bench = Bench::new().await;
    let (mut agent, mut master) = bench.connection().await;
    bench.up().cut();
    assert_eq!(bench.network.cable("a1", "m1").unwrap().reset(), 1);
    for end in [&mut agent, &mut master] {
        assert_eq!(end.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    eventually(|| bench.up().traffic().reset == 1 && bench.down().traffic().reset == 1).await;
    bench.up().heal();
    let (mut agent, mut master) = bench.connection().await;
    agent.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut master, 5).await, b"again");
}

#[tokio::test]
async fn who_is_not_there_is_not_connected_for_long() {
    let Bench { network, m1, _m2 } = Bench::new().await;
    let address = network.address("a1", "m1").unwrap();
    drop(m1);
    let error = match TcpStream::connect(address).await {
        Ok(mut agent) => agent.read(&mut [0]).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
