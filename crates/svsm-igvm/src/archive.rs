//! The archive of user-mode programs: a "newc" cpio, as the kernel of the
//! SVSM reads it.
//!
//! Same programs, same bytes: no time, no owner, no inode of the build machine
//! gets in.

/// An entry to be written.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The name, without a leading slash and without NUL.
    pub name: &'a str,
    /// The contents.
    pub data: &'a [u8],
}

/// A regular file that everyone may read and execute.
const MODE: u32 = 0o100_755;

/// Writes a "newc" archive of the entries in the order given.
///
/// `None` says that an entry is too large for the format's 32-bit fields.
#[must_use]
pub fn write(entries: &[Entry<'_>]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let inode = u32::try_from(index).ok()?.checked_add(1)?;
        write_entry(&mut out, inode, MODE, entry)?;
    }
    write_entry(
        &mut out,
        0,
        0,
        &Entry {
            name: "TRAILER!!!",
            data: &[],
        },
    )?;
    Some(out)
}

fn write_entry(out: &mut Vec<u8>, inode: u32, mode: u32, entry: &Entry<'_>) -> Option<()> {
    let data_bytes = u32::try_from(entry.data.len()).ok()?;
    let name_bytes = u32::try_from(entry.name.len()).ok()?.checked_add(1)?;
    // Inode, mode, uid, gid, links, mtime, size, device (2), rdev (2), size of
    // the name with its NUL, check.
    let fields = [
        inode, mode, 0, 0, 1, 0, data_bytes, 0, 0, 0, 0, name_bytes, 0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(entry.name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(entry.data);
    pad(out);
    Some(())
}

/// Names and contents start at multiples of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_writes() {
        let archive = write(&[
            Entry {
                name: "init",
                data: b"hello",
            },
            Entry {
                name: "a",
                data: b"",
            },
        ])
        .unwrap();
        let expected = concat!(
            "07070100000001000081ed00000000000000000000000100000000",
            "00000005000000000000000000000000000000000000000500000000init\0\0",
            "hello\0\0\0",
            "07070100000002000081ed00000000000000000000000100000000",
            "00000000000000000000000000000000000000000000000200000000a\0",
            "07070100000000000000000000000000000000000000010000000",
            "000000000000000000000000000000000000000000000000b00000000",
            "TRAILER!!!\0\0\0\0",
        );
        // Positions depend on padding of header plus name to four.
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(
            String::from_utf8(archive).unwrap().replace('\0', "."),
            expected.replace('\0', ".")
        );
    }
}
