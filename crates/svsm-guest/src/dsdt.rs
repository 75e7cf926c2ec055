//! The definition block of the ACPI tables, in ACPI machine language (ACPI 6.5, chapter 20): how to switch the machine off, and
//! the bus on which its devices are.
//!
//! Windows and interrupts are those of QEMU's q35 after its firmware: devices lie from 3 GiB up to the I/O APIC, and the
//! interrupts of their four pins arrive at its inputs 20 to 23.

/// `Name (_S5_, Package () { 0, 0, 0, 0 })`: switching off is sleep type 0.
const S5: [u8; 12] = [
    0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00,
];

/// `Name (_HID, EisaId ("PNP0A03"))` and `Name (_BBN, 0)`: a host bridge with bus 0 behind it.
const BRIDGE: [u8; 16] = [
    0x08, b'_', b'H', b'I', b'D', 0x0c, 0x41, 0xd0, 0x0a, 0x03, 0x08, b'_', b'B', b'B', b'N', 0x00,
];

/// What the bridge passes on (6.4): buses, ports beside those of its own, and memory. Not the window of video memory below 1 MiB:
/// who starts a kernel without firmware starts no display adapter either.
const RESOURCES: [u8; 84] = [
    // WordBusNumber: 0 to 255.
    0x88, 0x0d, 0x00, 0x02, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0x00, 0x00, 0x00, 0x00, 0x01,
    // IO: its own, 0xcf8 to 0xcff.
    0x47, 0x01, 0xf8, 0x0c, 0xf8, 0x0c, 0x01, 0x08, // WordIO: what is below them.
    0x88, 0x0d, 0x00, 0x01, 0x0c, 0x03, 0x00, 0x00, 0x00, 0x00, 0xf7, 0x0c, 0x00, 0x00, 0xf8, 0x0c,
    // WordIO: what is above them.
    0x88, 0x0d, 0x00, 0x01, 0x0c, 0x03, 0x00, 0x00, 0x00, 0x0d, 0xff, 0xff, 0x00, 0x00, 0x00, 0xf3,
    // DWordMemory: 0xc000_0000 to 0xfebf_ffff.
    0x87, 0x17, 0x00, 0x00, 0x0c, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc0, 0xff, 0xff,
    0xbf, 0xfe, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x3e, // The end.
    0x79, 0x00,
];

/// Slots whose pins are wired in turn; those behind them are the chipset's own.
const SLOTS: u8 = 24;
const PINS: u8 = 4;
/// The first of the I/O APIC's inputs that the pins are wired to.
const FIRST_INPUT: u8 = 20;

/// `Name (…, ` with what follows.
const NAME: u8 = 0x08;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
/// `Device (PCI0)`, without its length.
const DEVICE: [u8; 2] = [0x5b, 0x82];
/// An entry of the routing table, with its length.
const ROUTE_BYTES: usize = 13;
const ROUTES: u8 = SLOTS * PINS;

/// The content of the routing table, the resources, the device and the scope around it.
const ROUTING: usize = 1 + ROUTES as usize * ROUTE_BYTES;
const WINDOWS: usize = 2 + RESOURCES.len();
const INSIDE: usize =
    4 + BRIDGE.len() + 5 + 1 + with_length(WINDOWS) + 5 + 1 + with_length(ROUTING);
const AROUND: usize = 5 + DEVICE.len() + with_length(INSIDE);
// Lengths have two bytes at most, and that of the resources one.
const _: () = assert!(with_length(AROUND) < 0x1000 && RESOURCES.len() < 0x100);

/// Hands out the body of the block, piece by piece.
pub(crate) fn write(put: &mut impl FnMut(&[u8])) {
    put(&S5);
    put(&[SCOPE]);
    length(AROUND, put);
    put(b"\\_SB_");
    put(&DEVICE);
    length(INSIDE, put);
    put(b"PCI0");
    put(&BRIDGE);

    put(&[NAME]);
    put(b"_CRS");
    put(&[BUFFER]);
    length(WINDOWS, put);
    let [bytes, ..] = RESOURCES.len().to_le_bytes();
    put(&[0x0a, bytes]);
    put(&RESOURCES);

    put(&[NAME]);
    put(b"_PRT");
    put(&[PACKAGE]);
    length(ROUTING, put);
    put(&[ROUTES]);
    for slot in 0..SLOTS {
        for pin in 0..PINS {
            let input = FIRST_INPUT + (slot + pin) % PINS;
            // All functions of the slot; the pin; no other device in between; the input.
            put(&[PACKAGE, 12, 4, 0x0c, 0xff, 0xff, slot, 0x00]);
            put(&[0x0a, pin, 0x00, 0x0a, input]);
        }
    }
}

/// The bytes of something with its length in front.
const fn with_length(bytes: usize) -> usize {
    if bytes + 1 < 0x40 {
        bytes + 1
    } else {
        bytes + 2
    }
}

/// A length (`PkgLength`), itself included, in one byte or two.
fn length(bytes: usize, put: &mut impl FnMut(&[u8])) {
    let total = with_length(bytes);
    let [low, high, ..] = total.to_le_bytes();
    if total < 0x40 {
        put(&[low]);
    } else {
        put(&[0x40 | low & 0xf, high << 4 | low >> 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Reads a length, and says how many bytes it took.
    fn read_length(bytes: &[u8]) -> (usize, usize) {
        let first = usize::from(bytes[0]);
        match first >> 6 {
            0 => (first & 0x3f, 1),
            1 => (first & 0xf | usize::from(bytes[1]) << 4, 2),
            more => panic!("{more} more bytes"),
        }
    }

    /// The inside of something that begins with `head`, a length and `name`; it must be all of `bytes`.
    fn open<'a>(bytes: &'a [u8], head: &[u8], name: &[u8]) -> &'a [u8] {
        let rest = bytes.strip_prefix(head).unwrap();
        let (total, own) = read_length(rest);
        assert_eq!(total, rest.len(), "{name:?}");
        rest[own..].strip_prefix(name).unwrap()
    }

    #[test]
    fn lengths_are_those_of_what_they_enclose() {
        let mut block = Vec::new();
        write(&mut |bytes| block.extend_from_slice(bytes));
        let scope = block.strip_prefix(&S5[..]).unwrap();
        let device = open(open(scope, &[SCOPE], b"\\_SB_"), &DEVICE, b"PCI0");
        let resources = device.strip_prefix(&BRIDGE[..]).unwrap();
        let resources = resources.strip_prefix(b"\x08_CRS").unwrap();
        let (total, _) = read_length(&resources[1..]);
        let (resources, routes) = resources.split_at(1 + total);
        assert_eq!(open(resources, &[BUFFER], &[0x0a, 84]), RESOURCES);
        let routes = routes.strip_prefix(b"\x08_PRT").unwrap();
        let routes = open(routes, &[PACKAGE], &[96]);
        let mut count = 0_u8;
        for (route, expected) in routes.chunks(13).zip(0_u8..) {
            let (slot, pin) = (expected / 4, expected % 4);
            let address = [0x0c, 0xff, 0xff, slot, 0];
            let route = open(route, &[PACKAGE], &[4])
                .strip_prefix(&address)
                .unwrap();
            assert_eq!(route, [0x0a, pin, 0, 0x0a, 20 + (slot + pin) % 4]);
            count += 1;
        }
        assert_eq!(count, 96);
    }

    /// A number of so many bytes.
    fn number(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    #[test]
    fn the_bridge_passes_on_what_is_not_the_boards_own() {
        let mut rest = &RESOURCES[..];
        let mut passed = Vec::new();
        let mut own = None;
        while rest[0] != 0x79 {
            let bytes = if rest[0] & 0x80 == 0 {
                1 + usize::from(rest[0] & 7)
            } else {
                3 + usize::from(u16::from_le_bytes([rest[1], rest[2]]))
            };
            let (descriptor, more) = rest.split_at(bytes);
            rest = more;
            // A window: the size of its numbers, which follow six bytes.
            let width = match descriptor[0] {
                0x87 => 4,
                0x88 => 2,
                0x47 => {
                    let (min, max) = (number(&descriptor[2..4]), number(&descriptor[4..6]));
                    own = Some((min, max, descriptor[7]));
                    continue;
                }
                other => panic!("{other:#x}"),
            };
            let numbers: Vec<u64> = descriptor[6..].chunks(width).map(number).collect();
            let [granularity, min, max, translation, length] = numbers[..] else {
                panic!("{numbers:?}");
            };
            assert_eq!((granularity, translation), (0, 0));
            assert_eq!(max - min + 1, length, "{min:#x}");
            // Both ends are fixed.
            assert_eq!(descriptor[4] & 0xc, 0xc);
            passed.push((descriptor[3], min, max));
        }
        // The end tag and its checksum, of which zero says that there is none.
        assert_eq!(rest, [0x79, 0]);
        let (memory, ports, buses) = (0, 1, 2);
        let three_gib = 3 << 30;
        let io_apic = 0xfec0_0000;
        assert_eq!(
            passed,
            [
                (buses, 0, 255),
                (ports, 0, 0xcf7),
                (ports, 0xd00, 0xffff),
                (memory, three_gib, io_apic - 1),
            ]
        );
        // What lies between the ports is the bridge's.
        assert_eq!(own, Some((0xcf8, 0xcf8, 8)));
    }
}
