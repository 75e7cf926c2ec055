//! Rules across headers: their order, the life of parameter areas, platforms.

use std::collections::BTreeMap;

use super::body::Body;
use super::fault::{FileError, FileFault};
use super::{Header, Platforms, Section};

/// What the headers so far allow the next one to be.
#[derive(Debug, Default)]
pub(super) struct Checker {
    section: Option<Section>,
    /// The sizes of the areas that may still be used; none for those inserted.
    areas: BTreeMap<u32, Option<u64>>,
    version_string: bool,
}

impl Checker {
    pub(super) fn check(
        &mut self,
        header: &Header<'_>,
        platforms: &Platforms,
    ) -> Result<(), FileError> {
        self.rules(header, platforms).map_err(|fault| FileError {
            offset: header.offset,
            header: Some((header.index, header.kind)),
            fault,
        })
    }

    fn rules(&mut self, header: &Header<'_>, platforms: &Platforms) -> Result<(), FileFault> {
        if let Some(section) = header.kind.section() {
            if Some(section) < self.section {
                return Err(FileFault::SectionOrder);
            }
            self.section = Some(section);
        }
        match &header.body {
            Body::SupportedPlatform(platform) => {
                if !platform.mask.is_power_of_two() {
                    return Err(FileFault::PlatformMask {
                        mask: platform.mask,
                    });
                }
                let mut others = platforms.all().iter();
                if others.any(|other| other.mask == platform.mask || other.kind == platform.kind) {
                    return Err(FileFault::PlatformTwice);
                }
            }
            Body::VersionString(_) if self.version_string => return Err(FileFault::VersionString),
            Body::VersionString(_) => self.version_string = true,
            Body::ParameterArea(area) => {
                let before = self.areas.insert(area.area, Some(area.bytes));
                before.map_or(Ok(()), |_| Err(FileFault::AreaTwice { area: area.area }))?;
            }
            Body::Parameter { area, offset } => {
                let bytes = self.live(*area)?;
                if u64::from(*offset) >= bytes {
                    return Err(FileFault::OutsideArea {
                        area: *area,
                        offset: *offset,
                        bytes,
                    });
                }
            }
            Body::ParameterInsert(insert) => {
                let bytes = self.live(insert.area)?;
                if insert.gpa.checked_add(bytes).is_none() {
                    return Err(FileFault::Wraps {
                        address: insert.gpa,
                        bytes,
                    });
                }
                self.areas.insert(insert.area, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// The size of an area that was declared and not yet inserted.
    fn live(&self, area: u32) -> Result<u64, FileFault> {
        self.areas
            .get(&area)
            .copied()
            .flatten()
            .ok_or(FileFault::AreaUnknown { area })
    }
}
