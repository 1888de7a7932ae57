//! Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014), the same on every machine and version.

use muster_model::Token;

#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice of its own for each user: whoever rolls more often changes nobody else's luck.
    pub(crate) fn of(seed: u64, user: &str, n: usize) -> Self {
        let name = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Self(seed ^ name.wrapping_add(n as u64)).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `from` up to and without `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % to.saturating_sub(from).max(1)
    }

    /// Whether something of this many chances in a hundred happens.
    pub(crate) fn percent(&mut self, chances: u64) -> bool {
        self.next() % 100 < chances
    }

    /// One of these, if there are any.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.between(0, all.len() as u64) as usize).copied()
    }
}

/// What a client draws when it starts: never the same twice.
pub(crate) fn token(kind: u8, n: usize, life: u64) -> Token {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&life.to_be_bytes());
    bytes[8] = n as u8;
    Token(bytes)
}
