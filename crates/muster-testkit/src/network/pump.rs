//! Moves the bytes of one connection, one way.

use super::way::{Chunk, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// Bytes taken in at once.
const CHUNK_BYTES_MAX: usize = 16 << 10;
/// Chunks on their way. Beyond, nothing more is read, and the sender's own kernel holds it back.
const CHUNKS_MAX: usize = 64;

/// Moves bytes until the connection says no more, and passes that on as well.
pub(crate) async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, way: &Way) {
    let (put, taken) = mpsc::channel(CHUNKS_MAX);
    tokio::join!(fill(from, put, way), drain(taken, to, way));
}

async fn fill(mut from: ReadHalf<'_>, put: mpsc::Sender<Chunk>, way: &Way) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            // Nobody is left to whom it could be said.
            () = put.closed() => return,
        };
        // A connection that broke has said all that it will, like one that was closed.
        let Ok(n @ 1..) = read else { return };
        if put.send(way.take(&buffer[..n])).await.is_err() {
            return;
        }
    }
}

async fn drain(mut taken: mpsc::Receiver<Chunk>, mut to: WriteHalf<'_>, way: &Way) {
    while let Some(mut chunk) = taken.recv().await {
        way.pass(&mut chunk).await;
        if to.write_all(&chunk.bytes).await.is_err() {
            return;
        }
        way.arrived(&chunk);
    }
    // That it ended is a message too.
    way.open().await;
    // It may have broken meanwhile.
    let _ = to.shutdown().await;
}
