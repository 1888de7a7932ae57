//! HTTP/1.1 over a bare socket, so that a test sees the bytes that a client sees.

use crate::support::PATIENCE;
use crate::transcript::{Body, Message};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// An answer whose head was read.
pub struct Answer {
    pub head: Message,
    socket: TcpStream,
    unread: Vec<u8>,
}

/// Sends bytes on a connection of their own, and reads the head of the answer.
pub async fn send(address: &str, bytes: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Answer { head: Message::default(), socket, unread: Vec::new() };
    let head = answer.until(b"\r\n\r\n").await.expect("a head comes");
    answer.head = Message::head(std::str::from_utf8(&head).unwrap());
    answer
}

impl Answer {
    pub fn is_stream(&self) -> bool {
        self.head.header("Transfer-Encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"))
    }

    /// The rest of an answer that says how long it is.
    pub async fn whole(mut self) -> Message {
        assert!(!self.is_stream(), "{}: a body comes whole", self.head.line);
        let length = self.head.header("Content-Length").expect("a body has a length or comes in chunks");
        let length = length.parse().unwrap();
        self.head.body = Body::Whole(self.take(length).await.expect("a body is as long as it says"));
        self.head
    }

    /// The next chunk; none when the body ended in order.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let line = self.until(b"\r\n").await?;
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap(), 16).unwrap();
        let chunk = self.take(length).await?;
        assert_eq!(self.take(2).await?, b"\r\n", "a chunk ends");
        Ok((length > 0).then_some(chunk))
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            self.read().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// What comes before this, which is left out.
    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|it| it == end) {
                let before = self.unread.drain(..at).collect();
                self.unread.drain(..end.len());
                return Ok(before);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.unread)).await;
        match read {
            Err(_) => Err("nothing comes".into()),
            Ok(Ok(0)) => Err("the connection was closed in the middle".into()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
        }
    }
}
