//! Where a reader is in what a task writes to one of its streams, while its agent rotates the files: what is `stdout` now
//! is `stdout.1` next. It decides, and whoever has it reads.
//!
//! Agents tell with each part which file it is of, whatever its name. So the file that is being read is found again under
//! another name, and the one that was begun after it is that which has the next smaller number, if nothing was moved
//! while both were read.
//!
//! # Laws
//! - Nothing is told twice, and all of it in order.
//! - What was removed before it could be read is told as lost.

use super::agent::FilePart;

/// Numbers that follow each other and are no files, of which one may be about to be.
const MISSING_MAX: u32 = 2;
/// Older files that an agent may keep, and more.
const NUMBER_MAX: u32 = 1_000;
/// How often a file that is to be there is asked for.
const TRIES_MAX: u32 = 20;

/// A place in a stream.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The file that is read; none: whichever is there.
    file: Option<String>,
    offset: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Looks for the oldest file, at this number and beyond.
    Oldest { number: u32, missing: u32, found: Option<(u32, String)> },
    /// Reads the file where it was, or looks for it at this number and beyond. Also the oldest other one that was there.
    At { number: u32, missing: u32, seen: Option<(u32, String)> },
    /// All is read of the file of this number. The next is to be read.
    Next { number: u32, tries: u32 },
    /// That is here, if the one before still has this number.
    Check { number: u32, part: FilePart },
}

/// What came of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// These come next.
    Bytes(Vec<u8>),
    /// Another part is to be read.
    More,
    /// A part is to be read in a moment.
    Soon,
    /// There is no more at present.
    End,
    /// There is nothing at all.
    NotThere,
    /// What came next is gone; what is older than what comes now is lost.
    Lost,
}

impl Cursor {
    /// Where the oldest that is kept begins.
    pub(super) fn oldest() -> Self {
        Self { file: None, offset: 0, stage: Stage::Oldest { number: 0, missing: 0, found: None } }
    }

    /// Within the file that was found at a number.
    pub(super) fn within(number: u32, file: Option<String>, offset: u64) -> Self {
        Self { file, offset, stage: at(number) }
    }

    /// What is to be read: of the file of this number (0: the newest), from there on.
    pub(super) fn ask(&self) -> (u32, u64) {
        match &self.stage {
            Stage::Oldest { number, .. } => (*number, 0),
            Stage::At { number, .. } | Stage::Check { number, .. } => (*number, self.offset),
            Stage::Next { number, .. } => (number - 1, 0),
        }
    }

    /// Takes in what was read; none: there is no such file.
    pub(super) fn hear(&mut self, part: Option<FilePart>) -> Told {
        let stage = std::mem::replace(&mut self.stage, at(0));
        match (stage, part) {
            (Stage::Oldest { number, .. }, Some(FilePart { file: Some(file), .. }))
                if number < NUMBER_MAX =>
            {
                self.stage = Stage::Oldest { number: number + 1, missing: 0, found: Some((number, file)) };
                Told::More
            }
            (Stage::Oldest { number, missing, found }, None) if missing + 1 < MISSING_MAX => {
                self.stage = Stage::Oldest { number: number + 1, missing: missing + 1, found };
                Told::More
            }
            (Stage::Oldest { number, found: None, .. }, None) if number > 0 => {
                *self = Self::oldest();
                Told::NotThere
            }
            // An agent that does not say which it is has but one.
            (Stage::Oldest { found, .. }, _) => {
                if let Some((number, file)) = found {
                    (self.file, self.stage) = (Some(file), at(number));
                }
                Told::More
            }
            (Stage::At { number, .. }, Some(part)) if self.file.is_none() || self.file == part.file => {
                self.file = part.file;
                self.offset += part.bytes.len() as u64;
                self.stage = match part.bytes.is_empty() && number > 0 {
                    true => Stage::Next { number, tries: 0 },
                    false => at(number),
                };
                match part.bytes.is_empty() {
                    false => Told::Bytes(part.bytes),
                    true if number > 0 => Told::More,
                    true => Told::End,
                }
            }
            (Stage::At { number, .. }, Some(FilePart { file: Some(file), .. })) if number < NUMBER_MAX => {
                self.stage = Stage::At { number: number + 1, missing: 0, seen: Some((number, file)) };
                Told::More
            }
            (Stage::At { number: 0, .. }, None) if self.file.is_none() => {
                *self = Self::oldest();
                Told::NotThere
            }
            (Stage::At { number, missing, seen }, None) if missing + 1 < MISSING_MAX => {
                self.stage = Stage::At { number: number + 1, missing: missing + 1, seen };
                Told::More
            }
            (Stage::At { seen, .. }, _) => match seen {
                Some((number, file)) => {
                    *self = Self::within(number, Some(file), 0);
                    Told::Lost
                }
                None => Told::NotThere,
            },
            // It has both names for a moment; or for good, if its agent's machine died in that.
            (Stage::Next { number, tries }, Some(part)) if part.file == self.file => {
                self.stage = match tries < TRIES_MAX {
                    true => Stage::Next { number, tries: tries + 1 },
                    false => at(number - 1),
                };
                Told::Soon
            }
            (Stage::Next { number, .. }, Some(part)) => {
                self.stage = Stage::Check { number, part };
                Told::More
            }
            (Stage::Next { number, tries }, None) if tries < TRIES_MAX => {
                self.stage = Stage::Next { number, tries: tries + 1 };
                Told::Soon
            }
            // Somebody else than its agent removed it.
            (Stage::Next { number, .. }, None) => {
                *self = Self::within(number.saturating_sub(2), None, 0);
                Told::Lost
            }
            (Stage::Check { number, part }, Some(before)) if before.file == self.file => {
                if !before.bytes.is_empty() {
                    self.stage = at(number);
                    return self.hear(Some(before));
                }
                *self = Self::within(number - 1, part.file, part.bytes.len() as u64);
                match part.bytes.is_empty() {
                    true => Told::More,
                    false => Told::Bytes(part.bytes),
                }
            }
            (Stage::Check { number, .. }, _) => {
                self.stage = at(number); // it was moved meanwhile, to a larger number
                Told::More
            }
        }
    }
}

fn at(number: u32) -> Stage {
    Stage::At { number, missing: 0, seen: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// An agent's files of one stream: the newest first, each with its number among all that there were.
    #[derive(Debug, Default)]
    struct Files {
        all: VecDeque<(u32, Vec<u8>)>,
        made: u32,
        keep: usize,
        /// Something was in what was removed.
        is_removed: bool,
        /// The newest has two names.
        is_linked: bool,
    }

    impl Files {
        fn new(keep: usize) -> Self {
            let mut files = Self { keep, ..Self::default() };
            files.rotate();
            files
        }

        fn rotate(&mut self) {
            self.link();
            self.rename();
        }

        /// The first half of it: the newest has the name of an older one as well.
        fn link(&mut self) {
            if self.keep > 0 && !self.is_linked && !self.all.is_empty() {
                self.all.push_front(self.all[0].clone());
                self.is_linked = true;
                self.truncate();
            }
        }

        /// The second: another one has its name.
        fn rename(&mut self) {
            if std::mem::take(&mut self.is_linked) {
                self.all.pop_front();
            }
            self.made += 1;
            self.all.push_front((self.made, Vec::new()));
            self.truncate();
        }

        fn truncate(&mut self) {
            let removed = self.all.iter().skip(self.keep + 1);
            self.is_removed |= removed.into_iter().any(|(_, bytes)| !bytes.is_empty());
            self.all.truncate(self.keep + 1);
        }

        fn write(&mut self, byte: u8) {
            if self.is_linked {
                self.rename();
            }
            self.all[0].1.push(byte);
        }

        /// At most two bytes at once.
        fn read(&self, (number, offset): (u32, u64)) -> Option<FilePart> {
            let (file, bytes) = self.all.get(number as usize)?;
            let from = (offset as usize).min(bytes.len());
            let to = (from + 2).min(bytes.len());
            let (bytes, size) = (bytes[from..to].to_vec(), bytes.len() as u64);
            Some(FilePart { bytes, size, file: Some(file.to_string()) })
        }
    }

    /// Reads until there is no more: what came, and whether something was lost.
    fn read(cursor: &mut Cursor, files: &Files) -> (Vec<u8>, bool) {
        let (mut all, mut is_lost) = (Vec::new(), false);
        for _ in 0..10_000 {
            match cursor.hear(files.read(cursor.ask())) {
                Told::Bytes(bytes) => all.extend(bytes),
                Told::More | Told::Soon => {}
                Told::Lost => is_lost = true,
                Told::End | Told::NotThere => return (all, is_lost),
            }
        }
        panic!("it never comes to an end: {cursor:?}");
    }

    #[test]
    fn a_file_is_followed_under_its_other_names() {
        let (mut files, mut cursor) = (Files::new(3), Cursor::oldest());
        files.write(1);
        assert_eq!(read(&mut cursor, &files), (vec![1], false));
        for byte in 2..8 {
            files.write(byte);
            if byte % 3 == 0 {
                files.rotate();
            }
        }
        assert_eq!(read(&mut cursor, &files), (vec![2, 3, 4, 5, 6, 7], false));
        files.rotate();
        assert_eq!(read(&mut cursor, &files), (vec![], false));
        assert_eq!(read(&mut Cursor::oldest(), &files), (vec![1, 2, 3, 4, 5, 6, 7], false));
    }

    #[test]
    fn a_file_of_two_names_is_told_once() {
        let (mut files, mut cursor) = (Files::new(3), Cursor::oldest());
        files.write(1);
        files.link();
        assert_eq!(read(&mut cursor, &files), (vec![1], false));
        files.rename();
        files.write(2);
        assert_eq!(read(&mut cursor, &files), (vec![2], false));
    }

    #[test]
    fn what_was_removed_before_it_was_read_is_lost() {
        let (mut files, mut cursor) = (Files::new(1), Cursor::oldest());
        files.write(1);
        assert_eq!(read(&mut cursor, &files), (vec![1], false));
        for byte in 2..6 {
            files.write(byte);
            files.rotate();
        }
        assert_eq!(read(&mut cursor, &files), (vec![5], true));
        let mut without = Files::new(0);
        without.rotate();
        without.write(9);
        assert_eq!(read(&mut Cursor::within(0, Some("1".into()), 3), &without), (vec![9], true));
    }

    #[test]
    fn agents_that_do_not_say_which_file_it_is_rotate_none() {
        let mut cursor = Cursor::oldest();
        let part = |bytes: &[u8]| Some(FilePart { bytes: bytes.to_vec(), size: 9, file: None });
        assert_eq!((cursor.ask(), cursor.hear(part(b"begun"))), ((0, 0), Told::More));
        assert_eq!((cursor.ask(), cursor.hear(part(b"begun"))), ((0, 0), Told::Bytes(b"begun".into())));
        assert_eq!((cursor.ask(), cursor.hear(part(b""))), ((0, 5), Told::End));
        let mut none = Cursor::oldest();
        assert_eq!((none.ask(), none.hear(None)), ((0, 0), Told::More));
        assert_eq!((none.ask(), none.hear(None)), ((1, 0), Told::NotThere));
    }

    /// What is told next must come next, unless something is lost.
    fn note(told: &mut Vec<u8>, bytes: Vec<u8>, is_lost: &mut bool) -> Result<(), TestCaseError> {
        for byte in bytes {
            let expected = told.last().map_or(0, |last| last + 1);
            prop_assert!(byte == expected || *is_lost && byte > expected, "{byte} after {told:?}");
            *is_lost = false;
            told.push(byte);
        }
        Ok(())
    }

    proptest! {
        /// Whatever is written and moved between any two reads.
        #[test]
        fn nothing_is_told_twice_or_in_another_order_and_nothing_is_missing_without_a_word(
            keep in 0_usize..4,
            steps in prop::collection::vec(0_u8..6, 1..200),
        ) {
            let (mut files, mut cursor) = (Files::new(keep), Cursor::oldest());
            let (mut written, mut told, mut is_lost) = (0_u8, Vec::new(), false);
            for step in steps {
                match step {
                    0 if files.is_linked || files.keep == 0 => files.rename(),
                    0 => files.link(),
                    1 | 2 => {
                        files.write(written);
                        written += 1;
                    }
                    _ => match cursor.hear(files.read(cursor.ask())) {
                        Told::Bytes(bytes) => {
                            is_lost |= told.is_empty() && files.is_removed; // before it began
                            note(&mut told, bytes, &mut is_lost)?;
                        }
                        Told::Lost => is_lost = true,
                        _ => {}
                    },
                }
            }
            let (rest, lost) = read(&mut cursor, &files);
            is_lost |= lost || told.is_empty() && files.is_removed;
            note(&mut told, rest, &mut is_lost)?;
            let kept = files.all.iter().flat_map(|(_, bytes)| bytes).copied().max();
            if let Some(newest) = kept {
                prop_assert_eq!(told.last().copied(), Some(newest));
            }
        }
    }
}
