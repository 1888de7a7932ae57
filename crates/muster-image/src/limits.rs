//! How much one image may ask of an agent.

use crate::ImageError;
use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// The most of everything. An image or an archive that has more is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one layer or archive once it is decompressed, and bytes that are written for it.
    pub unpacked_bytes_max: u64,
    /// Bytes of one layer as it is downloaded.
    pub blob_bytes_max: u64,
    /// Entries of one layer or archive.
    pub entries_max: u64,
    /// Bytes of an entry's name, and of the target of a link.
    pub path_bytes_max: usize,
    /// Directories above an entry.
    pub depth_max: usize,
    /// Layers of one image.
    pub layers_max: usize,
    /// Bytes of a manifest, an index or a configuration.
    pub document_bytes_max: u64,
    /// Bytes that describe one entry of an archive: long names, extended attributes.
    pub header_bytes_max: u64,
    /// Memory that a decoder may use for its window, in bytes.
    pub window_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_bytes_max: 16 << 30,
            blob_bytes_max: 8 << 30,
            entries_max: 1_000_000,
            path_bytes_max: 4_096,
            depth_max: 128,
            layers_max: 127,
            document_bytes_max: 4 << 20,
            header_bytes_max: 1 << 20,
            window_bytes_max: 128 << 20,
        }
    }
}

/// What is left to be read, shared between a reader and who sets it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Left(Rc<Cell<Option<u64>>>);

impl Left {
    /// So many bytes and no more; none: as many as come.
    pub(crate) fn set(&self, bytes: Option<u64>) {
        self.0.set(bytes);
    }
}

/// Reads no more than is left.
#[derive(Debug)]
pub(crate) struct Metered<R> {
    inner: R,
    left: Left,
    what: &'static str,
    most: String,
    key: &'static str,
}

impl<R: Read> Metered<R> {
    pub(crate) fn new(inner: R, what: &'static str, most: u64, key: &'static str) -> (Self, Left) {
        let left = Left(Rc::new(Cell::new(Some(most))));
        (Self { inner, left: left.clone(), what, most: bytes_text(most), key }, left)
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.0.get() else { return self.inner.read(buffer) };
        if left == 0 && !buffer.is_empty() {
            // That all was read is known only when there is nothing more.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other(ImageError::TooMuch {
                    what: self.what.into(),
                    most: self.most.clone(),
                    key: self.key,
                })),
            };
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.0.set(Some(left - read as u64));
        Ok(read)
    }
}

/// A number of bytes as people write it.
pub(crate) fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{bytes} bytes"),
        _ => format!("{} MB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exactly_as_long_as_it_may_be_is_read() {
        let (mut reader, _) = Metered::new(&b"12345"[..], "the text has", 5, "unpacked_bytes_max");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345");
        let (mut reader, left) = Metered::new(&b"123456"[..], "the text has", 5, "unpacked_bytes_max");
        let error = ImageError::read("the text", reader.read_to_string(&mut text).unwrap_err());
        assert_eq!(
            error.to_string(),
            "the text has more than 5 bytes, the limit of this agent (unpacked_bytes_max)"
        );
        left.set(None);
    }
}
