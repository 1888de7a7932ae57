//! A task's description, with its own names cut out: what is left is mostly the same for all tasks of a kind.

use memchr::memchr3;
use muster_model::Sealed;
use serde::{Deserialize, Serialize, Serializer};
use std::{
    borrow::{Borrow, Cow},
    hash::{Hash, Hasher},
};
use xxhash_rust::xxh3::xxh3_64;

/// Descriptions up to this length, in bytes, are kept once where they are equal.
const SHARED_MAX: usize = 16 << 10;
/// The most places from which a name is cut out; later ones stay as they are.
const CUTS_MAX: usize = 16;
/// A place: which name, and its offset in what is left.
const CUT_BYTES: usize = 5;

/// A sealed description without those names that its task has beside it.
///
/// It is not opened: wherever one of the names stands with its length before it, both can be put back. First the number of
/// places, then the places in order, then what is left. Nothing at all stands for an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Description(Sealed);

/// The names, in an order that never changes.
pub(crate) type Names<'a> = [&'a str; 3];

impl Description {
    pub(crate) fn of(sealed: &[u8], names: Names<'_>) -> Self {
        let mut bytes = Vec::new();
        cut(sealed, names, &mut bytes);
        Self(Sealed::new(bytes))
    }

    /// As it came.
    pub(crate) fn whole(&self, names: Names<'_>) -> Whole<'static> {
        let names_bytes = names.map(str::len).into_iter().sum::<usize>();
        let mut bytes = Vec::with_capacity(if self.0.is_empty() { 0 } else { self.0.len() + names_bytes });
        self.append(names, &mut bytes);
        Whole(Cow::Owned(bytes))
    }

    /// Appends it to `out`, as it came.
    pub(crate) fn append(&self, names: Names<'_>, out: &mut Vec<u8>) {
        let Some((count, rest)) = self.0.split_first() else { return };
        let (cuts, left) = rest.split_at(usize::from(*count) * CUT_BYTES);
        let mut done = 0;
        for cut in cuts.chunks(CUT_BYTES) {
            let Some([which, a, b, c, d]) = cut.first_chunk::<CUT_BYTES>() else { continue };
            let Some(name) = names.get(usize::from(*which)) else { continue };
            let at = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            out.extend_from_slice(&left[done..at]);
            out.extend_from_slice(name.as_bytes());
            done = at;
        }
        out.extend_from_slice(&left[done..]);
    }
}

/// One that stands in these bytes, as [`cut`] left them.
impl From<&[u8]> for Description {
    fn from(bytes: &[u8]) -> Self {
        Self(Sealed::new(bytes))
    }
}

impl Borrow<[u8]> for Description {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// By what a description is found among others, if it is not too large to be kept for those that come.
pub(super) fn mark(description: &[u8]) -> Option<u64> {
    (1..=SHARED_MAX).contains(&description.len()).then(|| xxh3_64(description))
}

/// What is kept of a sealed description, in the place of what the buffer holds.
pub(super) fn cut(sealed: &[u8], names: Names<'_>, bytes: &mut Vec<u8>) {
    bytes.clear();
    if sealed.is_empty() {
        return;
    }
    let mut places = [(0, 0); CUTS_MAX];
    let cuts = cuts(sealed, names, &mut places);
    bytes.reserve(1 + cuts.len() * CUT_BYTES + sealed.len());
    bytes.push(cuts.len() as u8);
    let mut gone = 0;
    for &(which, at) in cuts {
        bytes.push(which as u8);
        bytes.extend_from_slice(&((at - gone) as u32).to_le_bytes());
        gone += names[which].len();
    }
    let mut end = 0;
    for &(which, at) in cuts {
        bytes.extend_from_slice(&sealed[end..at]);
        end = at + names[which].len();
    }
    bytes.extend_from_slice(&sealed[end..]);
}

/// Which names stand where with their length before them, in order.
fn cuts<'a>(
    sealed: &[u8],
    names: Names<'_>,
    places: &'a mut [(usize, usize); CUTS_MAX],
) -> &'a [(usize, usize)] {
    // The length of a longer one is no single byte, and a shorter one stands in many places by chance.
    let lengths = names.map(|name| u8::try_from(name.len()).ok().filter(|n| (2..128).contains(n)));
    let Some(any) = lengths.iter().flatten().next().filter(|_| u32::try_from(sealed.len()).is_ok()) else {
        return &[];
    };
    let [a, b, c] = lengths.map(|length| length.unwrap_or(*any));
    let (mut from, mut count) = (0, 0);
    while count < CUTS_MAX
        && let Some(found) = memchr3(a, b, c, &sealed[from..])
    {
        from += found + 1;
        let length = usize::from(sealed[from - 1]);
        let is_here = |name: &&str| name.len() == length && sealed[from..].starts_with(name.as_bytes());
        if let Some(which) = names.iter().position(is_here) {
            places[count] = (which, from);
            count += 1;
            from += length;
        }
    }
    &places[..count]
}

/// The bytes of a description; stored and hashed as if they were sealed.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Whole<'a>(#[serde(borrow)] pub(super) Cow<'a, [u8]>);

impl From<Whole<'_>> for Sealed {
    fn from(whole: Whole<'_>) -> Self {
        match whole.0 {
            Cow::Borrowed(bytes) => Self::new(bytes),
            Cow::Owned(bytes) => Self::new(bytes),
        }
    }
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl Hash for Whole<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (!self.0.is_empty()).then_some(&self.0[..]).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::hash_of;
    use proptest::prelude::*;

    const NAMES: Names<'_> = ["c1-S4", "web.1", "web"];

    #[test]
    fn names_are_cut_out_and_put_back() {
        let sealed = b"\n\x03web\x12\x07\n\x05web.1\x1a\x07\n\x05c1-S4:\x04web.\x03we\x05web.1";
        let description = Description::of(sealed, NAMES);
        assert_eq!(*description.whole(NAMES).0, *sealed);
        let other = ["c1-S7", "web.2", "web"];
        let sealed = b"\n\x03web\x12\x07\n\x05web.2\x1a\x07\n\x05c1-S7:\x04web.\x03we\x05web.2";
        assert_eq!(Description::of(sealed, other), description, "they differ by their names alone");
        assert_eq!(*description.whole(other).0, *sealed);
    }

    #[test]
    fn an_empty_one_takes_nothing() {
        assert_eq!(Description::of(b"", NAMES), Description::default());
        assert!(Description::default().whole(NAMES).0.is_empty());
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let name = |name: &'static str| Just([&[name.len() as u8], name.as_bytes()].concat());
        prop_oneof![
            3 => proptest::collection::vec(any::<u8>(), 0..12),
            1 => name(NAMES[0]),
            1 => name(NAMES[1]),
            1 => name(NAMES[2]),
            1 => Just(b"web.1".to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_comes_back(
            pieces in proptest::collection::vec(piece(), 0..40),
            names in proptest::sample::select(vec![NAMES, ["", "a", ""], ["c1-S4", "web", "web"]]),
        ) {
            let sealed = pieces.concat();
            let whole = Description::of(&sealed, names).whole(names);
            prop_assert_eq!(&*whole.0, &*sealed);
            let sealed = Sealed::new(sealed);
            prop_assert_eq!(hash_of(&(), &whole), hash_of(&(), &sealed));
        }
    }
}
