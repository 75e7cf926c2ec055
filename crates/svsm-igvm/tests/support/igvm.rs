//! IGVM files as tests want them, right or wrong.

/// Variable headers and file data, to be written with a fixed header around.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) version: u32,
    pub(crate) headers: Vec<(u32, Vec<u8>)>,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(version: u32) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

    /// Adds a header whose body is made of little-endian fields.
    pub(crate) fn header(mut self, kind: u32, fields: &[&[u8]]) -> Self {
        self.headers.push((kind, fields.concat()));
        self
    }

    pub(crate) fn platform(self, mask: u32, kind: u8) -> Self {
        let (mask, boundary) = (mask.to_le_bytes(), 0u64.to_le_bytes());
        self.header(0x001, &[&mask, &[0, kind], &1u16.to_le_bytes(), &boundary])
    }

    pub(crate) fn page(self, gpa: u64, mask: u32, offset: u32, flags: u32, kind: u16) -> Self {
        let fields: [&[u8]; 6] = [
            &gpa.to_le_bytes(),
            &mask.to_le_bytes(),
            &offset.to_le_bytes(),
            &flags.to_le_bytes(),
            &kind.to_le_bytes(),
            &[0, 0],
        ];
        self.header(0x302, &fields)
    }

    pub(crate) fn area(self, index: u32, bytes: u64, offset: u32) -> Self {
        let fields = [index.to_le_bytes(), offset.to_le_bytes()];
        self.header(0x301, &[&bytes.to_le_bytes(), &fields.concat()])
    }

    pub(crate) fn parameter(self, kind: u32, area: u32, offset: u32) -> Self {
        self.header(kind, &[&area.to_le_bytes(), &offset.to_le_bytes()])
    }

    pub(crate) fn insert(self, gpa: u64, mask: u32, area: u32) -> Self {
        self.header(
            0x303,
            &[&gpa.to_le_bytes(), &mask.to_le_bytes(), &area.to_le_bytes()],
        )
    }

    pub(crate) fn context(self, mask: u32, offset: u32) -> Self {
        let fields: [&[u8]; 4] = [
            &0u64.to_le_bytes(),
            &mask.to_le_bytes(),
            &offset.to_le_bytes(),
            &[0; 4],
        ];
        self.header(0x304, &fields)
    }

    /// Where file data starts.
    pub(crate) fn data_offset(&self) -> u32 {
        let bodies = self
            .headers
            .iter()
            .map(|(_, body)| 8 + body.len().next_multiple_of(8));
        u32::try_from(self.fixed_bytes() + bodies.sum::<usize>()).unwrap()
    }

    fn fixed_bytes(&self) -> usize {
        if self.version == 1 { 24 } else { 32 }
    }

    /// The file, with a right checksum.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut variable = Vec::new();
        for (kind, body) in &self.headers {
            variable.extend(kind.to_le_bytes());
            variable.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            variable.extend(body);
            variable.resize(variable.len().next_multiple_of(8), 0);
        }
        let fixed = self.fixed_bytes();
        let total = fixed + variable.len() + self.data.len();
        let mut out = b"IGVM".to_vec();
        for field in [self.version as usize, fixed, variable.len(), total, 0] {
            out.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
        if self.version != 1 {
            out.extend(0u32.to_le_bytes());
            out.extend(4096u32.to_le_bytes());
        }
        out.extend(variable);
        out.extend(&self.data);
        seal(&mut out);
        out
    }
}

/// Writes the checksum that the headers should have.
pub(crate) fn seal(file: &mut [u8]) {
    let field =
        |offset: usize| u32::from_le_bytes(file[offset..offset + 4].try_into().unwrap()) as usize;
    let fixed = if field(4) == 1 { 24 } else { 32 };
    let (start, bytes) = (field(8), field(12));
    let Some(variable) = file.get(start..).and_then(|rest| rest.get(..bytes)) else {
        return;
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file[..20]);
    hasher.update(&[0; 4]);
    hasher.update(&file[24..fixed]);
    hasher.update(variable);
    let sum = hasher.finalize();
    file[20..24].copy_from_slice(&sum.to_le_bytes());
}

/// A file with something of everything that native and SNP files have.
pub(crate) fn sample(version: u32) -> Raw {
    let raw = |offset: u32| {
        Raw::new(version)
            .platform(1, 0)
            .platform(2, 2)
            .header(
                0x101,
                &[&0x3_0000u64.to_le_bytes(), &2u32.to_le_bytes(), &[0; 4]],
            )
            .header(
                0x305,
                &[
                    &0x80_0000_0000u64.to_le_bytes(),
                    &3u32.to_le_bytes(),
                    &0x10_0000u32.to_le_bytes(),
                    &[0; 8],
                ],
            )
            .area(0, 0x1000, 0)
            .area(1, 0x2000, 0)
            .parameter(0x307, 0, 0)
            .parameter(0x30c, 1, 0)
            .insert(0x80_0001_0000, 3, 0)
            .insert(0x80_0001_1000, 3, 1)
            .page(0x1_0000, 3, offset, 0, 0)
            .page(0x1_1000, 3, offset + 0x1000, 0, 0)
            .page(0x1_2000, 3, 0, 0, 0)
            .page(0x1_3000, 2, 0, 0, 1)
            .page(0x1_4000, 2, 0, 0, 2)
            .page(0x1_5000, 2, offset, 2, 0)
            .page(0x1_6000, 2, offset, 4, 0)
            .context(1, offset + 0x2000)
    };
    let mut file = raw(raw(0).data_offset());
    file.data = [[0x90; 4096], [0xcc; 4096], [0; 4096]].concat();
    let context = &mut file.data[0x2000..];
    context[128..136].copy_from_slice(&0x1_0000u64.to_le_bytes());
    context[224..232].copy_from_slice(&0xd00u64.to_le_bytes());
    file
}
