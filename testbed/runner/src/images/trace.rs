use core::fmt;
use core::ops::Range;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
use serde::{Serialize, Serializer};

use super::{Image, SourcePlace};

/// One function of a stack trace.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TraceEntry {
    /// The address as the firmware gave it.
    #[serde(serialize_with = "as_hex")]
    pub address: u64,
    /// The image that has code there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The function, demangled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Where in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<SourcePlace>,
    /// Whether it was inlined into the next entry.
    pub inlined: bool,
}

impl TraceEntry {
    pub(super) const fn unknown(address: u64) -> Self {
        Self {
            address,
            image: None,
            function: None,
            place: None,
            inlined: false,
        }
    }
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#018x}  {}",
            self.address,
            self.function.as_deref().unwrap_or("?")
        )?;
        if let Some(image) = &self.image {
            write!(f, " [{image}]")?;
        }
        if self.inlined {
            f.write_str(" (inlined)")?;
        }
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        Ok(())
    }
}

fn as_hex<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

/// The code of an ELF file: sections and symbols, sorted by address.
#[derive(Debug, Default)]
pub(super) struct Code {
    sections: Vec<Range<u64>>,
    functions: Vec<(Range<u64>, String)>,
}

impl Code {
    pub(super) fn of(file: &object::File<'_>) -> Self {
        let is_code = |section: &object::Section<'_, '_>| section.kind() == SectionKind::Text;
        let sections: Vec<_> = file.sections().filter(is_code).collect();
        let mut functions = Vec::new();
        for symbol in file.symbols() {
            let home = sections
                .iter()
                .find(|section| symbol.section_index() == Some(section.index()));
            if let (Some(section), Ok(name)) = (home, symbol.name())
                && !name.is_empty()
                && symbol.kind() != SymbolKind::Section
            {
                let end = match symbol.size() {
                    // Written in assembly: it goes as far as the next one allows.
                    0 => section.address().saturating_add(section.size()),
                    size => symbol.address().saturating_add(size),
                };
                functions.push((symbol.address()..end, name.to_owned()));
            }
        }
        functions.sort_by_key(|(range, _)| range.start);
        let range = |section: &object::Section<'_, '_>| {
            section.address()..section.address().saturating_add(section.size())
        };
        Self {
            sections: sections.iter().map(range).collect(),
            functions,
        }
    }

    fn contains(&self, address: u64) -> bool {
        self.sections
            .iter()
            .any(|section| section.contains(&address))
    }

    fn function(&self, address: u64) -> Option<&str> {
        let behind = self
            .functions
            .partition_point(|(range, _)| range.start <= address);
        let (range, name) = self.functions.get(behind.checked_sub(1)?)?;
        range.contains(&address).then_some(name)
    }
}

/// What an image knows about an address; nothing if it has no code there.
pub(super) fn resolve(image: &Image, address: u64, is_return: bool) -> Vec<TraceEntry> {
    // A return address is behind its call, and a call that never returns may be a function's end.
    let probe = address.saturating_sub(u64::from(is_return));
    if !image.code.contains(probe) {
        return Vec::new();
    }
    let loader = image
        .debug
        .get_or_init(|| addr2line::Loader::new(image.path()).ok());
    let mut entries = loader
        .as_ref()
        .and_then(|loader| from_debug_information(loader, probe))
        .filter(|entries| !entries.is_empty())
        .unwrap_or_else(|| vec![(None, None)]);
    if let [(function @ None, _)] = &mut *entries {
        *function = image.code.function(probe).map(demangle);
    }
    let last = entries.len().saturating_sub(1);
    let entry = |(at, (function, place))| TraceEntry {
        address,
        image: Some(image.name().to_owned()),
        function,
        place,
        inlined: at < last,
    };
    entries.into_iter().enumerate().map(entry).collect()
}

type NameAndPlace = (Option<String>, Option<SourcePlace>);

fn from_debug_information(loader: &addr2line::Loader, probe: u64) -> Option<Vec<NameAndPlace>> {
    let mut frames = loader.find_frames(probe).ok()?;
    let mut found = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let raw = frame
            .function
            .as_ref()
            .and_then(|name| name.raw_name().ok());
        let place = frame.location.map(|location| SourcePlace {
            file: location.file.unwrap_or("?").to_owned(),
            line: location.line.unwrap_or(0),
        });
        found.push((raw.map(|name| demangle(&name)), place));
    }
    Some(found)
}

/// Without the hash: it says nothing to people.
fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}
