//! What many tasks of one answer have in common, as text that is made once.

use std::io;
use xxhash_rust::xxh3::xxh3_64;

/// Texts that are kept at a time: a power of two.
const KEPT: usize = 256;
/// What is longer than this with its key is made anew each time, in bytes.
const BYTES_MAX: usize = 4 << 10;

/// Texts by what they are made of. It is bounded: one that is kept gives way to another with the same place.
pub(super) struct Alike(Vec<Kept>);

#[derive(Clone, Default)]
struct Kept {
    key: Vec<u8>,
    text: Vec<u8>,
}

impl Alike {
    pub(super) fn new() -> Self {
        Self(vec![Kept::default(); KEPT])
    }

    /// Appends to `out` what `make` makes of this key, which is not empty and says all that `make` looks at.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn append(
        &mut self,
        key: &[u8],
        out: &mut Vec<u8>,
        make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let kept = &mut self.0[xxh3_64(key) as usize % KEPT];
        if kept.key == key {
            out.extend_from_slice(&kept.text);
            return Ok(());
        }
        let from = out.len();
        make(out)?;
        if let Some(text) = out.get(from..).filter(|text| key.len() + text.len() <= BYTES_MAX) {
            kept.key.clear();
            kept.key.extend_from_slice(key);
            kept.text.clear();
            kept.text.extend_from_slice(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_text_is_made_once_and_only_a_bounded_number_is_kept() {
        let (mut alike, mut made) = (Alike::new(), 0);
        let mut text = |key: &str, alike: &mut Alike| {
            let mut out = b"before ".to_vec();
            let make = |out: &mut Vec<u8>| {
                made += 1;
                out.extend_from_slice(key.as_bytes());
                Ok(())
            };
            alike.append(key.as_bytes(), &mut out, make).unwrap();
            assert_eq!(out, format!("before {key}").as_bytes());
            made
        };
        assert_eq!((text("a", &mut alike), text("a", &mut alike)), (1, 1));
        for n in 0..10_000 {
            text(&format!("key {n}"), &mut alike);
        }
        let before = text("long", &mut alike);
        let long = "x".repeat(BYTES_MAX);
        assert_eq!((text(&long, &mut alike), text(&long, &mut alike)), (before + 1, before + 2), "not kept");
        let bytes: usize = alike.0.iter().map(|kept| kept.key.len() + kept.text.len()).sum();
        assert!(alike.0.len() == KEPT && bytes <= KEPT * BYTES_MAX);
    }
}
