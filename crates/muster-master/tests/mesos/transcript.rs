//! Reads transcripts: what was sent, what came back, as bytes.

use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug, Clone)]
pub struct Transcript {
    pub exchanges: Vec<Exchange>,
    /// What came on a stream that was open already.
    pub events: Option<Body>,
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub request: Message,
    pub answer: Message,
}

/// A head and a body.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The request line, or the status line.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Whole(Vec<u8>),
    /// The recorder did not keep it.
    LeftOut,
    /// Chunks, and whether the last one ended the body.
    Chunks(Vec<Vec<u8>>, bool),
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Vec::new())
    }
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| value.as_str())
    }

    /// Sets a header that is there.
    pub fn set_header(&mut self, name: &str, value: &str) {
        for (_, old) in self.headers.iter_mut().filter(|(other, _)| other.eq_ignore_ascii_case(name)) {
            *old = value.into();
        }
    }

    pub fn whole(&self) -> &[u8] {
        match &self.body {
            Body::Whole(bytes) => bytes,
            Body::LeftOut | Body::Chunks(..) => panic!("{}: there is no whole body", self.line),
        }
    }

    /// Sets a body that is there, and its length.
    pub fn set_body(&mut self, bytes: Vec<u8>) {
        self.set_header("Content-Length", &bytes.len().to_string());
        self.body = Body::Whole(bytes);
    }

    /// As it is on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = format!("{}\r\n{}\r\n", self.line, headers.collect::<String>());
        [head.as_bytes(), self.whole()].concat()
    }

    /// Reads a head, without the empty line.
    pub fn head(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        };
        Self { line, headers: lines.map(header).collect(), body: Body::default() }
    }

    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }
}

/// Where the transcripts are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesos-wire")
}

impl Transcript {
    /// The transcript of this name, without its ending.
    pub fn named(name: &str) -> Self {
        let path = directory().join(format!("{name}.txt"));
        Self::parse(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let (mut exchanges, mut events) = (Vec::new(), None);
        let mut sections = sections(bytes).into_iter();
        while let Some((title, request)) = sections.next() {
            if title != "REQUEST" {
                continue; // what the recorder adds
            }
            let (_, response) = sections.next().expect("a request has an answer");
            if request.starts_with(b"(") {
                events = Some(chunks(&dumped(&response)));
            } else {
                let (request, answer) = (message(&request), message(&response));
                exchanges.push(Exchange { request, answer });
            }
        }
        Self { exchanges, events }
    }

    /// The only exchange there is.
    pub fn only(&self) -> &Exchange {
        assert_eq!(self.exchanges.len(), 1, "one exchange is recorded");
        &self.exchanges[0]
    }
}

/// The parts of a file, by the lines that begin them.
fn sections(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut sections: Vec<(String, Vec<u8>)> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match (line.strip_prefix(b"=== "), sections.last_mut()) {
            (Some(title), _) => {
                sections.push((String::from_utf8_lossy(title).trim().to_owned(), Vec::new()));
            }
            (None, Some((_, section))) => section.extend_from_slice(line),
            (None, None) => {} // a note on top
        }
    }
    sections
}

fn message(section: &[u8]) -> Message {
    const END: &[u8] = b"\r\n\r\n";
    let at = section.windows(END.len()).position(|it| it == END).expect("a head ends");
    let mut message = Message::head(std::str::from_utf8(&section[..at]).unwrap());
    let rest = &section[at + END.len()..];
    message.body = if message.header("Transfer-Encoding") == Some("chunked") {
        chunks(&dumped(rest))
    } else if rest.starts_with(b"[body left out]") {
        Body::LeftOut
    } else {
        let length = message.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        Body::Whole(dumped(rest)[..length].to_vec())
    };
    message
}

/// What a hex dump stands for; other bytes are as they are.
fn dumped(bytes: &[u8]) -> Vec<u8> {
    const COLUMNS: std::ops::Range<usize> = 8..8 + 32 * 3;
    if !bytes.starts_with(b"[binary body") {
        return bytes.to_vec();
    }
    let text = std::str::from_utf8(bytes).unwrap();
    let rows = text.lines().skip(1).take_while(|line| !line.is_empty());
    let row = |line: &str| {
        let digits = line.get(COLUMNS).unwrap_or(&line[COLUMNS.start..]).to_owned();
        let bytes: Vec<u8> =
            digits.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        bytes
    };
    rows.flat_map(row).collect()
}

/// The chunks of a body that may have ended or not.
fn chunks(mut bytes: &[u8]) -> Body {
    let mut chunks = Vec::new();
    while let Some(at) = bytes.windows(2).position(|it| it == b"\r\n") {
        let length = std::str::from_utf8(&bytes[..at]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap_or_else(|_| panic!("no chunk: {length:?}"));
        if length == 0 {
            return Body::Chunks(chunks, true);
        }
        let start = at + 2;
        chunks.push(bytes[start..start + length].to_vec());
        assert_eq!(&bytes[start + length..start + length + 2], b"\r\n", "a chunk ends");
        bytes = &bytes[start + length + 2..];
    }
    Body::Chunks(chunks, false)
}

/// The payload of a record, which is a whole chunk.
pub fn record(chunk: &[u8]) -> &[u8] {
    let at = chunk.iter().position(|byte| *byte == b'\n').expect("a record begins with its length");
    let length: usize = std::str::from_utf8(&chunk[..at]).unwrap().parse().unwrap();
    let payload = &chunk[at + 1..];
    assert_eq!(payload.len(), length, "a chunk is one record");
    payload
}

#[test]
fn all_transcripts_can_be_read() {
    for file in std::fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "txt") {
            let transcript = Transcript::parse(&std::fs::read(&path).unwrap());
            let is_empty = transcript.exchanges.is_empty() && transcript.events.is_none();
            assert!(!is_empty, "{} holds nothing", path.display());
        }
    }
}

#[test]
fn a_dump_is_read_as_the_bytes_it_shows() {
    let subscribe = Transcript::named("sched-subscribe-protobuf");
    let Exchange { request, answer } = subscribe.only();
    assert_eq!(request.whole().len(), 30);
    assert!(request.whole().starts_with(b"\x10\x01\x1a\x1a") && request.whole().ends_with(b"\x01*"));
    let Body::Chunks(chunks, ended) = &answer.body else { panic!("a stream") };
    let lengths: Vec<usize> = chunks.iter().map(|chunk| record(chunk).len()).collect();
    assert_eq!((lengths, *ended), (vec![188, 2, 349], false));
}
