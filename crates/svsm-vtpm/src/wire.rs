//! Reading and writing the wire format: big-endian numbers and bounded byte strings.

use crate::rc::Rc;

/// What can be read from the wire. An error says what is wrong, not yet which parameter it was.
pub(crate) trait Unmarshal: Sized {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc>;
}

/// What can be written to the wire.
pub(crate) trait Marshal {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc>;
}

/// The part of a message that is not yet read.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    lattices: bool,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            lattices: true,
        }
    }

    /// As [`Reader::new`], for what somebody sends to a TPM with or without post-quantum keys: one that has none does not read their
    /// structures either, and answers as one that never heard of them.
    pub(crate) const fn sent_to(has_lattices: bool, bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            lattices: has_lattices,
        }
    }

    /// Whether there can be structures of post-quantum keys in it.
    pub(crate) const fn lattices(&self) -> bool {
        self.lattices
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Rc> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Rc::INSUFFICIENT)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Rc> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Rc::INSUFFICIENT)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn read<T: Unmarshal>(&mut self) -> Result<T, Rc> {
        T::read(self)
    }

    /// A byte string of at most `max` bytes with its 16-bit size.
    pub(crate) fn sized(&mut self, max: usize) -> Result<&'a [u8], Rc> {
        let len = usize::from(self.read::<u16>()?);
        if len > max {
            return Err(Rc::SIZE);
        }
        self.take(len)
    }

    /// A structure with its 16-bit size, which must say exactly how long it is.
    pub(crate) fn sized_as<T: Unmarshal>(&mut self) -> Result<T, Rc> {
        let len = usize::from(self.read::<u16>()?);
        if len == 0 {
            return Err(Rc::SIZE);
        }
        let before = self.rest.len();
        let it = T::read(self)?;
        if before - self.rest.len() == len {
            Ok(it)
        } else {
            Err(Rc::SIZE)
        }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// A message under construction.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Rc> {
        let room = self
            .out
            .get_mut(self.at..self.at + bytes.len())
            .ok_or(Rc::MEMORY)?;
        room.copy_from_slice(bytes);
        self.at += bytes.len();
        Ok(())
    }

    pub(crate) fn put<T: Marshal + ?Sized>(&mut self, it: &T) -> Result<(), Rc> {
        it.write(self)
    }

    pub(crate) fn sized(&mut self, bytes: &[u8]) -> Result<(), Rc> {
        self.put(&u16::try_from(bytes.len()).map_err(|_| Rc::SIZE)?)?;
        self.bytes(bytes)
    }

    /// What `f` writes, preceded by its 16-bit size.
    pub(crate) fn sized_by(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<(), Rc>,
    ) -> Result<(), Rc> {
        let at = self.at;
        self.put(&0u16)?;
        f(self)?;
        let len = u16::try_from(self.at - at - 2).map_err(|_| Rc::SIZE)?;
        self.patch(at, &len.to_be_bytes());
        Ok(())
    }

    pub(crate) fn sized_as<T: Marshal + ?Sized>(&mut self, it: &T) -> Result<(), Rc> {
        self.sized_by(|w| w.put(it))
    }

    /// Overwrites what is already written at `at`.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(old) = self.out.get_mut(at..at + bytes.len()) {
            old.copy_from_slice(bytes);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.at
    }

    pub(crate) fn written(&self) -> &[u8] {
        self.out.get(..self.at).unwrap_or_default()
    }

    pub(crate) fn written_mut(&mut self) -> &mut [u8] {
        self.out.get_mut(..self.at).unwrap_or_default()
    }
}

macro_rules! numbers {
    ($($t:ty),*) => { $(
        impl Unmarshal for $t {
            fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
                Ok(Self::from_be_bytes(r.array()?))
            }
        }
        impl Marshal for $t {
            fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
                w.bytes(&self.to_be_bytes())
            }
        }
    )* };
}
numbers!(u8, u16, u32, u64, i32);

/// `TPMI_YES_NO`.
impl Unmarshal for bool {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        match r.read::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Rc::VALUE),
        }
    }
}

impl Marshal for bool {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&u8::from(*self))
    }
}

/// Writes `it` into `out`, and gives what was written.
pub(crate) fn marshal<'o, T: Marshal + ?Sized>(it: &T, out: &'o mut [u8]) -> Result<&'o [u8], Rc> {
    let mut w = Writer::new(out);
    w.put(it)?;
    let len = w.len();
    out.get(..len).ok_or(Rc::MEMORY)
}
