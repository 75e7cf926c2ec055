//! A serial port of the 16550 kind: the least that every machine and every host has.

use core::fmt;

use crate::seam::{PortCall, Width};

// Registers (National Semiconductor PC16550D data sheet, "Register Descriptions"), by their distance from the base port.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2; // write
const INTERRUPT_IDENT: u16 = 2; // read
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const DIVISOR_LATCH: u8 = 1 << 7;
const EIGHT_BITS_NO_PARITY: u8 = 3;
const FIFO_ENABLE_AND_CLEAR: u8 = 0x07;
const FIFO_ENABLED: u8 = 0xc0;
const FIFO_BYTES: usize = 16;
const TERMINAL_READY: u8 = 0x03;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// How often to ask whether the transmitter is empty before giving a byte up. At 115200 baud a full FIFO needs 1.4 ms, but an
/// emulated port waits for whoever reads its other end, and for a host that has other things to do: a million reads of a port
/// take about a second.
const POLLS: u32 = 1 << 20;

/// A 16550 at a fixed port.
///
/// The device is the host's, so nothing waits for it without bound: bytes that it does not take in time are dropped and
/// counted, and after the first such byte no other waits until the device is ready again. Writing never fails; a console
/// that fails its caller would make a host's silence our problem.
#[derive(Debug)]
pub struct Uart16550<P> {
    ports: P,
    base: u16,
    fifo: bool,    // takes 16 bytes once it is empty
    stalled: bool, // was not ready for a whole wait
    dropped: u64,
}

impl<P: PortCall> Uart16550<P> {
    /// The first serial port of a PC.
    pub const COM1: u16 = 0x3f8;
    /// The second serial port of a PC.
    pub const COM2: u16 = 0x2f8;

    /// The device at `base`, as whoever used it before left it.
    #[must_use]
    pub const fn new(ports: P, base: u16) -> Self {
        Self {
            ports,
            base,
            fifo: false,
            stalled: false,
            dropped: 0,
        }
    }

    /// Sets 115200 baud, 8 bits, no parity, FIFO, no interrupts. Answers whether there is a device at all.
    ///
    /// # Errors
    /// Why the ports cannot be accessed.
    pub fn init(&mut self) -> Result<bool, P::Error> {
        self.store(INTERRUPT_ENABLE, 0)?;
        self.store(LINE_CONTROL, DIVISOR_LATCH)?;
        self.store(DATA, 1)?; // low byte of the divisor of 115200
        self.store(INTERRUPT_ENABLE, 0)?; // high byte
        self.store(LINE_CONTROL, EIGHT_BITS_NO_PARITY)?;
        self.store(FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR)?;
        self.store(MODEM_CONTROL, TERMINAL_READY)?;
        self.fifo = self.load(INTERRUPT_IDENT)? & FIFO_ENABLED == FIFO_ENABLED;
        // Where there is no device, ports read as all ones whatever was written.
        self.store(SCRATCH, 0x5a)?;
        let present = self.load(SCRATCH)? == 0x5a;
        self.fifo &= present;
        Ok(present)
    }

    /// Sends bytes as they are; those that the device does not take are dropped.
    pub fn send(&mut self, bytes: &[u8]) {
        let at_once = if self.fifo { FIFO_BYTES } else { 1 };
        for chunk in bytes.chunks(at_once) {
            if !self.wait_empty() {
                self.drop_bytes(chunk.len());
                continue;
            }
            let port = self.base.wrapping_add(DATA);
            if self.ports.port_write_bytes(port, chunk).is_err() {
                self.drop_bytes(chunk.len());
            }
        }
    }

    /// A byte that arrived, if there is one.
    ///
    /// # Errors
    /// Why the ports cannot be accessed.
    pub fn receive(&mut self) -> Result<Option<u8>, P::Error> {
        if self.load(LINE_STATUS)? & DATA_READY == 0 {
            return Ok(None);
        }
        self.load(DATA).map(Some)
    }

    /// How many bytes were dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn wait_empty(&mut self) -> bool {
        let polls = if self.stalled { 1 } else { POLLS };
        for _ in 0..polls {
            match self.load(LINE_STATUS) {
                Ok(status) if status & TRANSMITTER_EMPTY != 0 => {
                    self.stalled = false;
                    return true;
                }
                Ok(_) => core::hint::spin_loop(),
                Err(_) => break,
            }
        }
        self.stalled = true;
        false
    }

    fn drop_bytes(&mut self, count: usize) {
        self.dropped = self.dropped.saturating_add(count as u64);
    }

    fn load(&mut self, register: u16) -> Result<u8, P::Error> {
        let [low, ..] = self
            .ports
            .port_read(self.base.wrapping_add(register), Width::Byte)?
            .to_le_bytes();
        Ok(low)
    }

    fn store(&mut self, register: u16, value: u8) -> Result<(), P::Error> {
        self.ports
            .port_write(self.base.wrapping_add(register), Width::Byte, value.into())
    }
}

impl<P: PortCall> fmt::Write for Uart16550<P> {
    /// Sends the text as it is; line feeds stay alone.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::fmt::Write as _;
    use std::{collections::VecDeque, vec::Vec};

    use super::*;

    /// A device, or its absence.
    #[derive(Debug, Default)]
    struct Device {
        absent: bool,
        stuck: bool,
        scratch: u8,
        latch: bool,
        fifo: bool,
        sent: Vec<u8>,
        arrived: VecDeque<u8>,
        status_reads: u32,
    }

    impl PortCall for Device {
        type Error = core::convert::Infallible;

        fn port_read(&mut self, port: u16, width: Width) -> Result<u32, Self::Error> {
            assert_eq!(width, Width::Byte);
            let value = match port - Uart16550::<Self>::COM1 {
                _ if self.absent => 0xff,
                DATA => self.arrived.pop_front().unwrap(),
                INTERRUPT_IDENT if self.fifo => FIFO_ENABLED | 1,
                INTERRUPT_IDENT => 1,
                LINE_STATUS => {
                    self.status_reads += 1;
                    u8::from(!self.arrived.is_empty())
                        | if self.stuck { 0 } else { TRANSMITTER_EMPTY }
                }
                SCRATCH => self.scratch,
                other => panic!("register {other} is not read"),
            };
            Ok(value.into())
        }

        fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Self::Error> {
            assert_eq!(width, Width::Byte);
            let value = u8::try_from(value).unwrap();
            match port - Uart16550::<Self>::COM1 {
                DATA if self.latch => assert_eq!(value, 1),
                DATA => self.sent.push(value),
                FIFO_CONTROL => self.fifo = value & 1 != 0,
                LINE_CONTROL => self.latch = value & DIVISOR_LATCH != 0,
                SCRATCH => self.scratch = value,
                _ => {}
            }
            Ok(())
        }
    }

    fn uart(device: Device) -> Uart16550<Device> {
        Uart16550::new(device, Uart16550::<Device>::COM1)
    }

    #[test]
    fn text_arrives() {
        let mut uart = uart(Device::default());
        assert_eq!(uart.init(), Ok(true));
        writeln!(uart, "hello, {}", 42).unwrap();
        assert_eq!(uart.ports.sent, b"hello, 42\n");
        assert_eq!(uart.dropped(), 0);
    }

    #[test]
    fn full_fifo_is_used_between_two_polls() {
        let mut uart = uart(Device::default());
        uart.send(&[0; 32]);
        assert_eq!(uart.ports.status_reads, 32);
        uart.init().unwrap();
        uart.send(&[0; 32]);
        assert_eq!(uart.ports.status_reads, 34);
    }

    #[test]
    fn stuck_device_costs_one_wait() {
        let mut uart = uart(Device {
            stuck: true,
            ..Device::default()
        });
        uart.send(&[0; 100]);
        assert_eq!(uart.dropped(), 100);
        assert_eq!(uart.ports.status_reads, POLLS + 99);
        uart.ports.stuck = false;
        uart.send(b"back");
        assert_eq!(uart.ports.sent, b"back");
    }

    #[test]
    fn absent_device_is_noticed() {
        let mut uart = uart(Device {
            absent: true,
            ..Device::default()
        });
        assert_eq!(uart.init(), Ok(false));
        assert!(!uart.fifo);
    }

    #[test]
    fn input_is_read_when_there_is_some() {
        let mut uart = uart(Device {
            arrived: [7].into(),
            ..Device::default()
        });
        assert_eq!(uart.receive(), Ok(Some(7)));
        assert_eq!(uart.receive(), Ok(None));
    }
}
