/// CRC-16/IBM-3740 (polynomial 0x1021, start 0xffff), without a table: this runs on serial-port time.
pub(crate) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc: u16, &byte| {
        let mut x = (crc >> 8) ^ u16::from(byte);
        x ^= x >> 4;
        (crc << 8) ^ (x << 12) ^ (x << 5) ^ x
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_check_value() {
        // "CRC-16/IBM-3740" in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc16(b"123456789"), 0x29b1);
    }
}
