//! A client of HTTP/1.1 that sees what a client of Mesos sees: heads, chunks and records.

use crate::support::PATIENCE;
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// An answer's head, and the connection that its body comes on.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By name in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    stream: BufReader<TcpStream>,
}

/// Sends a request; its head is the caller's but for `Host` and `Content-Length`.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    send_on(TcpStream::connect(address).await.unwrap(), address, method, path, headers, body).await
}

/// The same, from where little is taken in before somebody reads.
pub(crate) async fn send_narrow(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    send_on(stream, address, method, path, headers, body).await
}

async fn send_on(
    mut stream: TcpStream,
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    timeout(PATIENCE, Answer::read(BufReader::new(stream))).await.expect("an answer in time")
}

impl Answer {
    async fn read(mut stream: BufReader<TcpStream>) -> Self {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Self { status, headers, stream }
    }

    /// The next chunk of the body, empty at its end; none if the connection broke off.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.ok()?;
            let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk).await.ok()?;
            chunk.truncate(length);
            Some(chunk)
        };
        timeout(PATIENCE, read).await.expect("a chunk in time")
    }

    /// The next record: one chunk, with its length before it. None at the proper end of the stream.
    pub(crate) async fn record(&mut self) -> Option<Vec<u8>> {
        let chunk = self.chunk().await.expect("the stream ends in order");
        if chunk.is_empty() {
            return None;
        }
        let at = chunk.iter().position(|byte| *byte == b'\n').expect("a length");
        let length: usize = std::str::from_utf8(&chunk[..at]).unwrap().parse().unwrap();
        assert_eq!(length, chunk.len() - at - 1, "a record is one chunk");
        Some(chunk[at + 1..].to_vec())
    }

    /// The whole body of an answer that is no stream.
    pub(crate) async fn text(self) -> String {
        String::from_utf8(self.bytes().await).unwrap()
    }

    /// The same, which need not be a text.
    pub(crate) async fn bytes(mut self) -> Vec<u8> {
        let length: usize = self.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        body
    }
}
