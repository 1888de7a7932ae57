//! Decompression: what a stream is packed with is told by its first bytes, not by its name.

use crate::{ImageError, Limits};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::{self, BufRead, BufReader, Read};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Reads what is packed with gzip, zstd, bzip2 or xz, or as it is. Memory is bounded, how much comes out is not.
///
/// # Errors
/// The stream cannot be read.
pub fn decoded<'a>(stream: impl Read + 'a, limits: &Limits) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let read = |error| ImageError::read("the archive", error);
    // A pipe may give less at first; none of the marks is longer than what any writer gives at once.
    let start = stream.fill_buf().map_err(read)?;
    Ok(if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(stream))
    } else if start.starts_with(ZSTD) || is_skippable(start) {
        Box::new(Zstd { at: At::Between(stream), window: limits.window_bytes_max })
    } else if start.starts_with(XZ) {
        let kib = u32::try_from(limits.window_bytes_max >> 10).unwrap_or(u32::MAX);
        Box::new(XzReader::new_mem_limit(stream, true, kib))
    } else if start.starts_with(BZIP2) {
        Box::new(MultiBzDecoder::new(stream))
    } else {
        Box::new(stream)
    })
}

/// Whether a zstd frame begins that holds nothing to unpack.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// All frames of a zstd stream, one after the other.
struct Zstd<R: BufRead> {
    at: At<R>,
    window: u64,
}

enum At<R: BufRead> {
    Between(R),
    Within(Box<StreamingDecoder<R, FrameDecoder>>),
    /// It ended, or something went wrong.
    Over,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.at, At::Over) {
                At::Over => return Ok(0),
                At::Between(mut stream) => {
                    let start = stream.fill_buf()?;
                    if start.is_empty() {
                        return Ok(0);
                    }
                    if is_skippable(start) {
                        skip(&mut stream)?;
                        self.at = At::Between(stream);
                        continue;
                    }
                    let next = StreamingDecoder::new_with_max_window_size(stream, self.window);
                    let next = next.map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
                    })?;
                    self.at = At::Within(Box::new(next));
                }
                At::Within(mut frame) => {
                    let read = frame.read(buffer)?;
                    if read > 0 {
                        self.at = At::Within(frame);
                        return Ok(read);
                    }
                    self.at = At::Between(frame.into_inner());
                }
            }
        }
    }
}

fn skip(stream: &mut impl Read) -> io::Result<()> {
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    match io::copy(&mut stream.take(length), &mut io::sink())? == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn all(bytes: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoded(bytes, limits).unwrap().read_to_end(&mut out).map(|_| out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_told_by_its_first_bytes() {
        let limits = Limits::default();
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let zstd = compress_to_vec(&text[..], CompressionLevel::Fastest);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
        xz.write_all(&text).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        for packed in [text.clone(), gzip(&text), zstd, xz.finish().unwrap(), bz.finish().unwrap()] {
            assert_eq!(all(&packed, &limits).unwrap(), text);
        }
        assert_eq!(all(b"", &limits).unwrap(), b"");
    }

    #[test]
    fn streams_of_several_parts_are_read_to_their_end() {
        let limits = Limits::default();
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(all(&two, &limits).unwrap(), b"one two");
        let frame = |text: &[u8]| compress_to_vec(text, CompressionLevel::Fastest);
        let skipped = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let zstd = [&skipped[..], &frame(b"one "), &skipped[..], &frame(b"two"), &skipped[..]].concat();
        assert_eq!(all(&zstd, &limits).unwrap(), b"one two");
        let cut = &zstd[..zstd.len() - 1];
        assert_eq!(all(cut, &limits).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        let limits = Limits { window_bytes_max: 1 << 10, ..Limits::default() };
        let text = vec![7; 1 << 20];
        let zstd = compress_to_vec(&text[..], CompressionLevel::Fastest);
        assert!(all(&zstd, &limits).is_err());
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
        xz.write_all(&text).unwrap();
        assert!(all(&xz.finish().unwrap(), &limits).is_err());
    }
}
