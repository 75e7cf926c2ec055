//! Prints the first bytes of every page that an IGVM file loads:
//! `cargo run --example page_map -- some.igvm`

use svsm_igvm::file::{Body, ImageFile};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("which file?")?;
    let bytes = std::fs::read(path)?;
    let image = ImageFile::read(&bytes)?;
    for header in image.headers() {
        let Body::PageData(page) = &header.body else {
            continue;
        };
        let start = page
            .data
            .and_then(<[u8]>::first_chunk::<16>)
            .copied()
            .unwrap_or_default();
        let text = start.map(|byte| format!("{byte:02x}")).join(" ");
        println!(
            "{:#014x}  {}  {text}",
            page.gpa,
            image.platforms().describe(page.mask)
        );
    }
    Ok(())
}
