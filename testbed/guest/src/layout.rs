//! Addresses that the image and the guest agree on.

/// The page with secrets (SEV-SNP).
pub const SECRETS: u64 = 0x1000;
/// The page with what CPUID says (SEV-SNP).
pub const CPUID: u64 = 0x2000;
/// The page with the number of CPUs, the environment, and the windows of devices.
pub const FACTS: u64 = 0x3000;
/// The page with the memory map.
pub const MEMORY_MAP: u64 = 0x4000;
/// The page with the table of CPUs.
pub const MADT: u64 = 0x5000;
/// The page with the command line: the name of the guest to be.
pub const COMMAND_LINE: u64 = 0x6000;
/// The page with the device tree.
pub const DEVICE_TREE: u64 = 0x7000;
/// The page of 16-bit code: where other CPUs start.
pub const REAL_MODE: u64 = 0x8000;

/// Where the number of CPUs is in its page.
pub const VP_COUNT: u32 = 0;
/// Where the environment is.
pub const ENVIRONMENT: u32 = 4;
/// Where the windows of devices are.
pub const MMIO: u32 = 8;

/// Memory that the image asks for where no machine has RAM.
pub const FAR_MEMORY: u64 = 0x80_0000_0000;
/// How much of it.
pub const FAR_MEMORY_BYTES: u32 = 4 << 20;
/// What the image puts into its last page.
pub const FAR_DATA: &[u8] = b"far away";

/// The bit that makes a page private (SEV-SNP).
pub const C_BIT: u64 = 1 << 51;
/// Where all memory is mapped a second time, shared (SEV-SNP).
pub const SHARED: u64 = 2 << 39;
/// Where the first gibibyte is mapped again, private, and open to ring 3 (SEV-SNP).
pub const USER: u64 = 64 << 39;
/// Where KVM and this machine's images have the first CPU's save area.
pub const VMSA: u64 = 0xffff_ffff_f000;
