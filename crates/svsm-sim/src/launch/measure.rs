//! The launch digest: a chain of hashes over all pages in the order in which they came.

use super::PageType;
use crate::curve::sha384;
use crate::vmsa::Vmsa;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a link of the chain is made of (56860, "PAGE_INFO").
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct PageInfo {
    digest: [u8; 48],
    contents: [u8; 48],
    length: U16,
    page_type: u8,
    imi_page: u8,
    reserved: u8,
    /// Of VMPL1, VMPL2 and VMPL3.
    permissions: [u8; 3],
    gpa: U64,
}
const _: () = assert!(size_of::<PageInfo>() == 0x70);

/// What has been launched so far, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Measurement(pub [u8; 48]);

impl Measurement {
    /// Nothing.
    pub const NOTHING: Self = Self([0; 48]);

    /// Adds a page of which nothing but the address and the type count.
    pub fn add_unmeasured(&mut self, page_type: PageType, gpa: u64, permissions: [u8; 3]) {
        self.add(page_type, gpa, permissions, [0; 48]);
    }

    /// Adds a page as the host hands it over: of types whose contents count, with contents.
    ///
    /// Of a save area the time stamp counter's scale and offset count as zero, since the host may not know them.
    pub fn add_page(
        &mut self,
        page_type: PageType,
        gpa: u64,
        permissions: [u8; 3],
        page: &[u8; 4096],
    ) {
        let contents = match page_type {
            PageType::Normal => sha384(page),
            PageType::Vmsa => match Vmsa::read_from_bytes(page) {
                Ok(mut vmsa) => {
                    vmsa.tsc_scale = U64::new(0);
                    vmsa.tsc_offset = U64::new(0);
                    sha384(vmsa.as_bytes())
                }
                // Both are one page long, so this does not happen; the page as it is would be the next best.
                Err(_) => sha384(page),
            },
            PageType::Zero | PageType::Unmeasured | PageType::Secrets | PageType::Cpuid => [0; 48],
        };
        self.add(page_type, gpa, permissions, contents);
    }

    fn add(&mut self, page_type: PageType, gpa: u64, permissions: [u8; 3], contents: [u8; 48]) {
        let info = PageInfo {
            digest: self.0,
            contents,
            length: U16::new(0x70),
            page_type: page_type.number(),
            imi_page: 0,
            reserved: 0,
            permissions,
            gpa: U64::new(gpa),
        };
        self.0 = sha384(info.as_bytes());
    }
}
