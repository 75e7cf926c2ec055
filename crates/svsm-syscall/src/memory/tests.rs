use core::cell::RefCell;
use std::vec::Vec;

use super::*;

/// Memory of a pretended program: what lies before `start` or behind the bytes faults.
pub(crate) struct Pretended {
    pub(crate) start: u64,
    pub(crate) bytes: RefCell<Vec<u8>>,
}

impl Pretended {
    pub(crate) fn new(start: u64, bytes: &[u8]) -> Self {
        Self {
            start,
            bytes: RefCell::new(bytes.to_vec()),
        }
    }

    fn reach(&self, slice: UserSlice, other: usize) -> core::ops::Range<usize> {
        let bytes = self.bytes.borrow().len();
        let Some(from) = slice
            .start()
            .checked_sub(self.start)
            .and_then(|from| usize::try_from(from).ok())
        else {
            return 0..0;
        };
        let from = from.min(bytes);
        from..from + slice.len_bytes().min(other).min(bytes - from)
    }
}

impl UserMemory for Pretended {
    fn read(&self, from: UserSlice, to: &mut [u8]) -> usize {
        let range = self.reach(from, to.len());
        to[..range.len()].copy_from_slice(&self.bytes.borrow()[range.clone()]);
        range.len()
    }

    fn write(&self, to: UserSlice, from: &[u8]) -> usize {
        let range = self.reach(to, from.len());
        self.bytes.borrow_mut()[range.clone()].copy_from_slice(&from[..range.len()]);
        range.len()
    }
}

#[test]
fn claims_outside_the_user_half_are_faults() {
    for (start, bytes) in [
        (USER_END, 1),
        (USER_END - 1, 2),
        (0, USER_END + 1),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (0xffff_8000_0000_0000, 1),
    ] {
        assert_eq!(
            UserSlice::new(start, bytes),
            Err(SysError::FAULT),
            "{start:#x} {bytes}"
        );
    }
    assert!(UserSlice::new(USER_END - 1, 1).is_ok());
    assert!(UserSlice::new(USER_END, 0).is_ok());
    assert!(UserPtr::<[u64; 2]>::new(USER_END - 15).is_err());
}

#[test]
fn later_values_are_checked_anew() {
    let ptr = UserPtr::<u64>::new(USER_END - 16).unwrap();
    assert!(ptr.slice(1).is_ok());
    assert_eq!(ptr.slice(2), Err(SysError::FAULT));
    assert_eq!(ptr.slice(u64::MAX / 8), Err(SysError::FAULT));
    assert_eq!(ptr.slice(u64::MAX), Err(SysError::FAULT));
}

#[test]
fn slices_split_where_they_end_at_the_latest() {
    let slice = UserSlice::new(0x1000, 10).unwrap();
    let (first, rest) = slice.split_at(4);
    assert_eq!(
        (first.len_bytes(), rest.start(), rest.len_bytes()),
        (4, 0x1004, 6)
    );
    let (all, nothing) = slice.split_at(11);
    assert_eq!((all, nothing.is_empty()), (slice, true));
}

#[test]
fn values_come_and_go_whole() {
    let memory = Pretended::new(0x1000, &[0; 12]);
    let ptr = UserPtr::<u32>::new(0x1000).unwrap();
    write_value(&memory, ptr, 2, &0x0403_0201).unwrap();
    assert_eq!(memory.bytes.borrow()[8..], [1, 2, 3, 4]);
    assert_eq!(read_value(&memory, ptr, 2), Ok(0x0403_0201));
    assert_eq!(read_value(&memory, ptr, 3), Err(SysError::FAULT));
    assert_eq!(write_value(&memory, ptr, 3, &1), Err(SysError::FAULT));
}

#[test]
fn text_ends_at_its_zero_byte() {
    let memory = Pretended::new(0x1000, b"init\0rest");
    let mut buffer = [0; 64];
    let text = UserStr::new(0x1000).unwrap();
    // The memory ends long before the buffer does; that is no fault.
    assert_eq!(read_str(&memory, text, &mut buffer), Ok("init"));
    assert_eq!(read_str(&memory, text, &mut buffer[..5]), Ok("init"));
}

#[test]
fn text_without_end_is_an_error() {
    let memory = Pretended::new(0x1000, b"init");
    let text = UserStr::new(0x1000).unwrap();
    assert_eq!(read_str(&memory, text, &mut [0; 64]), Err(SysError::FAULT));
    assert_eq!(read_str(&memory, text, &mut [0; 3]), Err(SysError::INVALID));
    assert_eq!(read_str(&memory, text, &mut []), Err(SysError::INVALID));
    let memory = Pretended::new(0x1000, b"\xff\0");
    assert_eq!(
        read_str(&memory, text, &mut [0; 64]),
        Err(SysError::INVALID)
    );
}

#[test]
fn text_does_not_run_out_of_the_user_half() {
    let memory = Pretended::new(USER_END - 4, &[b'a'; 64]);
    let text = UserStr::new(USER_END - 4).unwrap();
    assert_eq!(read_str(&memory, text, &mut [0; 64]), Err(SysError::FAULT));
    assert!(UserStr::new(USER_END).is_err());
}
