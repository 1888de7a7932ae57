//! `/files/browse`, `/files/read`, `/files/download` and `/files/debug`.

use super::{FILE_HEADER, Files, Refused, mode_text};
use crate::{
    answer::{bad, no_file, plain},
    body::{Wrapped, Writers},
    query::{Query, asked},
};
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use muster_proto::mesos;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
};

/// How a file or directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// What is in a directory.
    Browse,
    /// A part of a file.
    Read,
    /// The whole of a file.
    Download,
    /// What is exposed.
    Debug,
}

/// The paths of this process of Mesos, which is its own: they have no prefix.
pub const PATHS: [(&str, What); 6] = [
    ("/files/browse", What::Browse),
    ("/files/browse.json", What::Browse),
    ("/files/debug", What::Debug),
    ("/files/download", What::Download),
    ("/files/read", What::Read),
    ("/files/read.json", What::Read),
];

/// Answers a request.
pub async fn answer(files: &Files, writers: &Writers, what: What, head: &Parts) -> Response<Body> {
    match try_answer(files, writers, what, head).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_answer(
    files: &Files,
    writers: &Writers,
    what: What,
    head: &Parts,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let (query, wrapped) = asked(head)?;
    if what == What::Debug {
        let all: BTreeMap<String, String> =
            files.all().await?.into_iter().map(|(name, path)| (name, path.display().to_string())).collect();
        return Ok(json(writers, wrapped, move |out| Ok(serde_json::to_writer(out, &all)?)).await);
    }
    let path = query.get("path").filter(|path| !path.is_empty());
    let Some(path) = path.map(str::to_owned) else { return refuse("Expecting 'path=value' in query.\n") };
    match what {
        What::Browse => {
            let list = files.list(path).await?;
            let write = move |out: &mut dyn Write| {
                let shown: Vec<_> = list.iter().map(Shown).collect();
                Ok(serde_json::to_writer(out, &shown)?)
            };
            Ok(json(writers, wrapped, write).await)
        }
        What::Download => download(files, writers, path).await,
        What::Read | What::Debug => {
            let (offset, length) = (number(&query, "offset")?, number(&query, "length")?);
            let part = files.read(path, offset, length).await?;
            let file = part.file_header();
            let mut response =
                json(writers, wrapped, move |out| write_part(out, part.offset, &part.data)).await;
            response.headers_mut().insert(FILE_HEADER, file);
            Ok(response)
        }
    }
}

/// A number of the query; none where it is absent or -1.
fn number(query: &Query, name: &str) -> Result<Option<u64>, Box<Response<Body>>> {
    let Some(text) = query.get(name) else { return Ok(None) };
    match text.parse::<i64>() {
        Err(error) => refuse(format!("Failed to parse {name}: {error}.\n")),
        Ok(-1) => Ok(None),
        Ok(number) => match u64::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => refuse(format!("Negative {name} provided: {number}.\n")),
        },
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(bad(why)))
}

impl From<Refused> for Box<Response<Body>> {
    fn from(refused: Refused) -> Self {
        Box::new(match refused {
            Refused::NotFound => no_file(),
            Refused::Invalid(why) => bad(why),
            Refused::Failed(why) => plain(StatusCode::INTERNAL_SERVER_ERROR, why),
        })
    }
}

async fn json<W>(writers: &Writers, wrapped: Wrapped, write: W) -> Response<Body>
where
    W: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
{
    writers.answer("application/json", wrapped, write).await
}

/// A file as it is listed.
struct Shown<'a>(&'a mesos::FileInfo);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0;
        let seconds = file.mtime.as_ref().map_or(0, |it| it.nanoseconds / 1_000_000_000);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("gid", file.gid())?;
        map.serialize_entry("mode", &mode_text(file.mode()))?;
        map.serialize_entry("mtime", &(seconds as f64))?;
        map.serialize_entry("nlink", &file.nlink())?;
        map.serialize_entry("path", &file.path)?;
        map.serialize_entry("size", &file.size())?;
        map.serialize_entry("uid", file.uid())?;
        map.end()
    }
}

/// Bytes as a text of JSON. Such as are no UTF-8 stand there as they are, as in Mesos: whoever follows a log puts the
/// pieces together again.
fn write_part(out: &mut dyn Write, offset: u64, data: &[u8]) -> io::Result<()> {
    out.write_all(b"{\"data\":\"")?;
    for byte in data {
        match byte {
            b'"' | b'\\' | b'/' => out.write_all(&[b'\\', *byte])?,
            8 => out.write_all(b"\\b")?,
            12 => out.write_all(b"\\f")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            b'\t' => out.write_all(b"\\t")?,
            0..32 | 127 => write!(out, "\\u{byte:04x}")?,
            _ => out.write_all(&[*byte])?,
        }
    }
    write!(out, "\",\"offset\":{offset}}}")
}

async fn download(
    files: &Files,
    writers: &Writers,
    path: String,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let (file, size, name) = files.open(path).await?;
    let write = move |out: &mut dyn Write| copy(&file, size, out);
    let mut response = writers.answer(kind(&name), Wrapped::default(), write).await;
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !"\";\\".contains(c) { c } else { '_' }).collect();
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename={plain}")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// As much as there was when it was opened: a log may grow as fast as it is read.
fn copy(file: &File, size: u64, out: &mut dyn Write) -> io::Result<()> {
    let (mut from, mut bytes) = (file.take(size), vec![0; 32 << 10]);
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            n => out.write_all(bytes.get(..n).unwrap_or_default())?,
        }
    }
}

/// What a file of this name is.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css",
        Some("csv") => "text/csv",
        Some("gif") => "image/gif",
        Some("gz") => "application/x-gzip",
        Some("htm" | "html") => "text/html",
        Some("jpeg" | "jpg") => "image/jpeg",
        Some("js") => "application/javascript",
        Some("json") => "application/json",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("tar") => "application/x-tar",
        Some("txt") => "text/plain",
        Some("xml") => "text/xml",
        Some("zip") => "application/zip",
        _ => "application/octet-stream",
    }
}
