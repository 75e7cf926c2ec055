//! Shows how each kind of platform writes the same page into a page-table entry.
//!
//! ```text
//! cargo run -p svsm-platform --example entries
//! ```

use svsm_platform::{
    addr::Gpa,
    encryption::{BitPosition, Encryption, Visibility},
};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let bit = |number| BitPosition::new(number).ok_or("no position for an encryption bit");
    let platforms = [
        ("unprotected", Encryption::None),
        ("SEV-SNP", Encryption::CBit(bit(51)?)),
        ("TDX", Encryption::SharedBit(bit(47)?)),
        ("SEV-SNP, vTOM", Encryption::Vtom(Gpa::try_from(1 << 46)?)),
    ];
    let page = Gpa::try_from(0x1234_5000)?;

    println!("{:<15} {:>20} {:>20}", "platform", "private", "shared");
    for (name, encryption) in platforms {
        let entry = |visibility| {
            encryption
                .encode(page, visibility)
                .ok_or("page cannot be addressed")
        };
        let (private, shared) = (entry(Visibility::Private)?, entry(Visibility::Shared)?);
        println!("{name:<15} {private:>#20x} {shared:>#20x}");
        assert_eq!(encryption.decode(private), (page, Visibility::Private));
    }

    // The bit that says "private" cannot also be part of an address.
    let sev = Encryption::CBit(bit(51)?);
    assert_eq!(
        sev.encode(Gpa::try_from(1 << 51)?, Visibility::Shared),
        None
    );
    Ok(())
}
