//! JSON that is made in memory and goes out in pieces: what is long is written with it instead of with a serializer,
//! which would write every comma by itself.

use serde::{Serialize, ser::SerializeMap};
use std::io::{self, Write};

/// How much is gathered before it goes out, in bytes.
const PIECE: usize = 64 << 10;

/// A text that is made.
pub struct Text<'a> {
    gathered: Vec<u8>,
    to: &'a mut dyn Write,
}

impl<'a> Text<'a> {
    /// A text that goes out this way.
    pub fn to(to: &'a mut dyn Write) -> Self {
        Self { gathered: Vec::new(), to }
    }

    /// Where what comes next is put.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Puts a value at the end.
    ///
    /// # Errors
    /// It has no JSON.
    pub fn value(&mut self, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        serde_json::to_writer(&mut self.gathered, value).map_err(io::Error::from)
    }

    /// Begins an object.
    pub fn object(&mut self) -> Object<'_, 'a> {
        self.gathered.push(b'{');
        Object { text: self, is_first: true }
    }

    /// What is gathered goes out, if it is a piece.
    fn pass(&mut self) -> io::Result<()> {
        if self.gathered.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// What is gathered goes out.
    ///
    /// # Errors
    /// Those of the way out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

/// An object of a text. It is closed by its [`end`](SerializeMap::end).
pub struct Object<'t, 'a> {
    text: &'t mut Text<'a>,
    is_first: bool,
}

impl<'a> Object<'_, 'a> {
    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text.gathered.push(b',');
        }
        serde_json::to_writer(&mut self.text.gathered, key)?;
        self.text.gathered.push(b':');
        Ok(())
    }

    /// Writes a list, item by item. What is gathered goes out between them.
    ///
    /// # Errors
    /// Those of the way out and of the items.
    pub fn list<I: IntoIterator>(
        &mut self,
        key: &str,
        items: I,
        mut write: impl FnMut(&mut Text<'a>, I::Item) -> io::Result<()>,
    ) -> io::Result<()> {
        self.key(key)?;
        self.text.gathered.push(b'[');
        let mut is_first = true;
        for item in items {
            if !std::mem::take(&mut is_first) {
                self.text.gathered.push(b',');
            }
            write(self.text, item)?;
            self.text.pass()?;
        }
        self.text.gathered.push(b']');
        Ok(())
    }

    /// Writes a list of values.
    ///
    /// # Errors
    /// Those of the way out and of the values.
    pub fn values<I: IntoIterator<Item: Serialize>>(&mut self, key: &str, values: I) -> io::Result<()> {
        self.list(key, values, |text, value| text.value(&value))
    }
}

impl SerializeMap for Object<'_, '_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> serde_json::Result<()> {
        self.key(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> serde_json::Result<()> {
        serde_json::to_writer(&mut self.text.gathered, value)
    }
    fn end(self) -> serde_json::Result<()> {
        self.text.gathered.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Counts how often something goes out.
    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.push(data.into());
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(count: usize) -> Pieces {
        let mut out = Pieces::default();
        let mut text = Text::to(&mut out);
        let mut object = text.object();
        object.serialize_entry("a \"b\"", &1.0).unwrap();
        object.values("numbers", 0..count).unwrap();
        object
            .list("objects", 0..2, |text, n| {
                let mut object = text.object();
                object.serialize_entry("n", &n)?;
                Ok(object.end()?)
            })
            .unwrap();
        object.end().unwrap();
        text.flush().unwrap();
        out
    }

    #[test]
    fn it_is_the_json_of_its_parts() {
        assert_eq!(
            String::from_utf8(written(3).0.concat()).unwrap(),
            r#"{"a \"b\"":1.0,"numbers":[0,1,2],"objects":[{"n":0},{"n":1}]}"#
        );
        assert_eq!(
            String::from_utf8(written(0).0.concat()).unwrap(),
            r#"{"a \"b\"":1.0,"numbers":[],"objects":[{"n":0},{"n":1}]}"#
        );
    }

    #[test]
    fn what_is_long_goes_out_in_pieces() {
        let out = written(100_000);
        let sizes: Vec<usize> = out.0.iter().map(Vec::len).collect();
        assert!(sizes.len() > 5 && sizes.iter().all(|size| *size < 2 * PIECE), "{sizes:?}");
        let all: serde_json::Value = serde_json::from_slice(&out.0.concat()).unwrap();
        assert_eq!(all["numbers"], json!((0..100_000).collect::<Vec<_>>()));
    }
}
