use super::*;
use crate::addr::HpaRange;
use crate::board::State;
use crate::layout::{Layout, MapEntry};
use crate::loader::Backed;
use crate::personality::fake::Fake;
use crate::phys::fake::Ram;
use crate::pool::Pool;
use crate::vmcb::Vmcb;

struct Setup {
    vmcb: Box<Vmcb>,
    board: Board,
    fake: Fake,
    map: GuestMap,
}

/// A guest with 32 MiB.
fn map() -> GuestMap {
    let entry = MapEntry {
        start: 0,
        bytes: 48 << 20,
        kind: 1,
    };
    let layout = Layout::new(&[entry], Some(32 << 20)).unwrap();
    let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
    GuestMap::new(&layout, &Backed::new(), &mut pool, &mut Ram::new(0)).unwrap()
}

impl Setup {
    fn new() -> Self {
        let board = Board::new(&[0, 1, 2]);
        board.slot(0).unwrap().set_state(State::Runs);
        board.slot(1).unwrap().set_state(State::WaitsForStart);
        board.slot(2).unwrap().set_state(State::Runs);
        Self {
            vmcb: Box::new(Vmcb::zeroed()),
            board,
            fake: Fake::default(),
            map: map(),
        }
    }

    fn exit(&mut self, exit: Exit, f: impl FnOnce(&mut Vcpu<'_>)) -> (Next, Vcpu<'_>) {
        let mut vcpu = Vcpu::new(&mut self.vmcb);
        vcpu.vmcb.control.event = 0;
        vcpu.vmcb.save.rip = 0x100;
        f(&mut vcpu);
        let liar = Lock::new(Liar::honest());
        let transfers = Lock::new(Transfers::new());
        let mut native = Native::new(&liar, &transfers, &self.map, Ram::new(0));
        let next = native.exit(exit, &mut vcpu, 0, &self.board, &mut self.fake);
        (next, vcpu)
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> bool {
        let (next, vcpu) = self.exit(Exit::Msr { write: true }, |vcpu| {
            vcpu.gprs.rcx = u64::from(msr);
            vcpu.set_edx_eax(value);
        });
        assert_eq!(next, Next::Resume);
        assert_eq!(vcpu.vmcb.save.rip == 0x102, vcpu.vmcb.control.event == 0);
        vcpu.vmcb.control.event == 0
    }

    fn out(&mut self, port: u16, size: u8, value: u32) -> Next {
        let io = Io {
            port,
            size,
            input: false,
            string: false,
            next_rip: 0x101,
        };
        self.exit(Exit::Io(io), |vcpu| vcpu.vmcb.save.rax = u64::from(value))
            .0
    }
}

#[test]
fn svm_is_hidden() {
    let mut setup = Setup::new();
    let (_, vcpu) = setup.exit(Exit::Cpuid, |vcpu| vcpu.vmcb.save.rax = 0x8000_0001);
    assert_eq!(vcpu.gprs.rcx, 0xffff_effb);
    assert_eq!(vcpu.vmcb.save.rip, 0x102);
    let (_, vcpu) = setup.exit(Exit::Cpuid, |vcpu| vcpu.vmcb.save.rax = 0x8000_000a);
    assert_eq!((vcpu.rax(), vcpu.gprs.rcx), (0, 0));
    let (_, vcpu) = setup.exit(Exit::Svm, |_| {});
    assert_eq!(vcpu.vmcb.control.event, Event::UD.encode());
    for msr in [VM_CR, VM_HSAVE_PA, 0x4000_0000] {
        assert!(!setup.wrmsr(msr, 0));
    }
}

#[test]
fn cpuid_mirrors_cr4() {
    let mut setup = Setup::new();
    let (_, vcpu) = setup.exit(Exit::Cpuid, |vcpu| vcpu.vmcb.save.rax = 1);
    assert_eq!(vcpu.gprs.rcx >> 27 & 1, 0);
    let (_, vcpu) = setup.exit(Exit::Cpuid, |vcpu| {
        vcpu.vmcb.save.rax = 1;
        vcpu.vmcb.save.cr4 = 1 << 18;
    });
    assert_eq!(vcpu.gprs.rcx >> 27 & 1, 1);
}

#[test]
fn efer_keeps_svme_and_the_rules_of_long_mode() {
    let mut setup = Setup::new();
    setup.vmcb.save.efer = SVME;
    assert!(setup.wrmsr(EFER, EFER_LME | 1 << 11));
    assert_eq!(setup.vmcb.save.efer, SVME | EFER_LME | 1 << 11);
    setup.vmcb.save.efer |= EFER_LMA;
    setup.vmcb.save.cr0 = CR0_PG;
    assert!(!setup.wrmsr(EFER, 0));
    assert!(!setup.wrmsr(EFER, EFER_LME | SVME));
    assert!(!setup.wrmsr(EFER, EFER_LME | EFER_FFXSR));
    assert!(setup.wrmsr(EFER, EFER_LME | 1));
    assert_eq!(setup.vmcb.save.efer, SVME | EFER_LME | EFER_LMA | 1);
    let (_, vcpu) = setup.exit(Exit::Msr { write: false }, |vcpu| {
        vcpu.gprs.rcx = u64::from(EFER)
    });
    assert_eq!(vcpu.edx_eax(), EFER_LME | EFER_LMA | 1);
}

#[test]
fn interrupts_are_forwarded_and_messages_are_mailed() {
    let mut setup = Setup::new();
    assert!(setup.wrmsr(ICR, 0x1_0000_40f0));
    assert_eq!(setup.fake.sent, [0x1_0000_40f0]);
    assert!(setup.wrmsr(ICR, icr::init_to(1)));
    assert!(setup.wrmsr(ICR, icr::start_up_to(1, 8)));
    let mail = setup.board.slot(1).unwrap().take_mail();
    assert!(mail.has_init());
    assert_eq!(mail.start_page(), Some(8));
    // A CPU that runs takes no start-up message, and is not disturbed.
    setup.fake.sent.clear();
    assert!(setup.wrmsr(ICR, icr::start_up_to(2, 8)));
    assert!(setup.fake.sent.is_empty());
    // All but oneself.
    assert!(setup.wrmsr(ICR, 0xc_4400));
    assert_eq!(setup.fake.sent, [icr::nmi_to(1), icr::nmi_to(2)]);
    assert!(!setup.wrmsr(ICR, 1 << 12));
}

#[test]
fn the_apic_timer_is_read_for_the_guest() {
    let mut setup = Setup::new();
    let (_, vcpu) = setup.exit(Exit::Msr { write: false }, |vcpu| {
        vcpu.gprs.rcx = u64::from(APIC_TIMER);
    });
    assert_eq!(vcpu.edx_eax(), 0x1_2345);
    assert_eq!(vcpu.vmcb.save.rip, 0x102);
}

#[test]
fn x2apic_mode_stays() {
    let mut setup = Setup::new();
    assert!(setup.wrmsr(APIC_BASE, 0xfee0_0d00));
    assert!(!setup.wrmsr(APIC_BASE, 0xfee0_0900));
}

#[test]
fn the_ways_out_end_the_run() {
    let mut setup = Setup::new();
    assert_eq!(setup.out(0x604, 2, 0x2000), Next::End(Ending::PowerOff));
    assert_eq!(setup.out(0x605, 1, 0x20), Next::End(Ending::PowerOff));
    assert_eq!(
        setup.out(0x602, 4, 0x2000_0000),
        Next::End(Ending::PowerOff)
    );
    assert_eq!(
        setup.out(0x604, 2, 0x2400),
        Next::End(Ending::Unsupported(Unsupported::SleepType(1)))
    );
    assert_eq!(
        setup.out(0xcf9, 1, 6),
        Next::End(Ending::Reset { port: 0xcf9 })
    );
    // The address of PCI configuration.
    assert_eq!(setup.out(0xcf8, 4, 0x600), Next::Resume);
    assert_eq!(setup.fake.out.pop(), Some((0xcf8, 4, 0x600)));
    assert_eq!(
        setup.out(0x64, 1, 0xfe),
        Next::End(Ending::Reset { port: 0x64 })
    );
    assert_eq!(
        setup.out(0x92, 1, 3),
        Next::End(Ending::Reset { port: 0x92 })
    );
    assert!(setup.fake.out.is_empty());
    assert_eq!(
        setup.exit(Exit::Shutdown, |_| {}).0,
        Next::End(Ending::Shutdown)
    );
    assert_eq!(setup.exit(Exit::Hlt, |_| {}).0, Next::Halt);
}

#[test]
fn other_writes_reach_the_device_and_l0s_own_do_not() {
    let mut setup = Setup::new();
    assert_eq!(setup.out(0xcf9, 1, 2), Next::Resume);
    assert_eq!(setup.out(0x92, 1, 0), Next::Resume);
    assert_eq!(setup.out(0xf4, 4, 1), Next::Resume);
    assert_eq!(setup.out(0xf2, 4, u32::MAX), Next::Resume);
    assert_eq!(setup.out(0x2f8, 1, b'x'.into()), Next::Resume);
    assert_eq!(setup.fake.out, [(0xcf9, 1, 2), (0x92, 1, 2)]);
    let io = Io {
        port: 0x604,
        size: 2,
        input: true,
        string: false,
        next_rip: 0x101,
    };
    let (_, vcpu) = setup.exit(Exit::Io(io), |vcpu| vcpu.vmcb.save.rax = u64::MAX);
    assert_eq!(vcpu.rax(), 0xffff_ffff_ffff_5678);
    let io = Io {
        port: 0x2fd,
        size: 1,
        ..io
    };
    let (_, vcpu) = setup.exit(Exit::Io(io), |vcpu| vcpu.vmcb.save.rax = 0);
    assert_eq!((vcpu.rax(), vcpu.vmcb.save.rip), (0xff, 0x101));
}

/// A write to a port by a guest's CPU.
fn write<M: HostMemory>(native: &mut Native<'_, M>, setup: &mut Setup, port: u16, value: u32) {
    let io = Io {
        port,
        size: 4,
        input: false,
        string: false,
        next_rip: 0x102,
    };
    let mut vcpu = Vcpu::new(&mut setup.vmcb);
    vcpu.vmcb.save.rax = u64::from(value);
    let next = native.exit(Exit::Io(io), &mut vcpu, 0, &setup.board, &mut setup.fake);
    assert_eq!((next, vcpu.vmcb.save.rip), (Next::Resume, 0x102));
}

/// Selects item 5 and reads so many bytes of it, or does something else, at this address.
fn order(control: u8, bytes: u32, to: u64) -> Vec<u8> {
    let mut order = vec![0, 5, 0, control];
    order.extend(bytes.to_be_bytes());
    order.extend(to.to_be_bytes());
    order
}

#[test]
fn the_configuration_device_writes_to_the_guests_memory_alone() {
    const DONE: [u8; 4] = [0; 4];
    const FAILED: [u8; 4] = [0, 0, 0, 1];
    let map = map();
    for (control, to, end, brought) in [
        (8 | 2, 0x2000, DONE, [0x78; 4]),
        // The guest's last bytes are followed by L0's memory.
        (8 | 2, (32 << 20) - 2, FAILED, [0xcc; 4]),
        (8 | 2, 32 << 20, FAILED, [0xcc; 4]),
        (8 | 2, u64::MAX, FAILED, [0xcc; 4]),
        (8 | 16, 0x2000, FAILED, [0xcc; 4]),
        (8 | 4, 0x2000, DONE, [0xcc; 4]),
    ] {
        let (liar, transfers) = (Lock::new(Liar::honest()), Lock::new(Transfers::new()));
        let mut native = Native::new(&liar, &transfers, &map, Ram::new(33 << 20));
        native.memory.0[0x1000..0x1010].copy_from_slice(&order(control, 4, to));
        let mut setup = Setup::new();
        for (port, half) in [(0x514, 0_u32), (0x518, 0x1000)] {
            write(&mut native, &mut setup, port, half.swap_bytes());
        }
        // The device itself is only asked for bytes.
        assert_eq!(setup.fake.out, [(0x510, 2, 5)]);
        let memory = &native.memory.0;
        assert_eq!(memory[0x1000..0x1004], end, "{control} {to:#x}");
        assert_eq!(memory[0x2000..0x2004], brought);
        let own = &memory[(32 << 20) - 2..];
        assert!(own.iter().all(|byte| *byte == 0xcc), "{to:#x}");
    }
}

#[test]
fn a_transfer_of_many_bytes_is_as_long_as_it_says() {
    let map = map();
    for bytes in [0, 1, 511, 512, 513, 5000] {
        let (liar, transfers) = (Lock::new(Liar::honest()), Lock::new(Transfers::new()));
        let mut native = Native::new(&liar, &transfers, &map, Ram::new(32 << 20));
        native.memory.0[0x1000..0x1010].copy_from_slice(&order(8 | 2, bytes, 0x2000));
        write(
            &mut native,
            &mut Setup::new(),
            0x518,
            0x1000_u32.swap_bytes(),
        );
        let memory = &native.memory.0;
        assert_eq!(memory[0x1000..0x1004], [0; 4]);
        let brought = memory[0x2000..].iter().take_while(|byte| **byte == 0x78);
        assert_eq!(brought.count(), bytes as usize);
    }
}

#[test]
fn the_cpus_share_one_configuration_device() {
    const HIGH: u64 = 1 << 39;
    let entry = MapEntry {
        start: 0,
        bytes: 48 << 20,
        kind: 1,
    };
    let layout = Layout::new(&[entry], Some(32 << 20)).unwrap();
    let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
    let mut backed = Backed::new();
    backed
        .insert(crate::addr::GpaRange::from_u64(HIGH, HIGH + 0x1000).unwrap())
        .unwrap();
    let mut ram = Ram::new(48 << 20);
    let map = GuestMap::new(&layout, &backed, &mut pool, &mut ram).unwrap();
    let (liar, transfers) = (Lock::new(Liar::honest()), Lock::new(Transfers::new()));
    let (home, _) = map.resolve(crate::addr::Gpa::new(HIGH).unwrap()).unwrap();
    let at = usize::try_from(home.as_u64()).unwrap();
    ram.0[at..at + 16].copy_from_slice(&order(8 | 2, 4, 0x2000));
    // One CPU says the upper half of the address, another one the lower half.
    let mut setup = Setup::new();
    let mut first = Native::new(&liar, &transfers, &map, Ram::new(0));
    write(&mut first, &mut setup, 0x514, 0x80_u32.swap_bytes());
    let mut second = Native::new(&liar, &transfers, &map, ram);
    write(&mut second, &mut setup, 0x518, 0);
    assert_eq!(second.memory.0[0x2000..0x2004], [0x78; 4]);
    assert_eq!(*transfers.lock(), Transfers::new());
}

#[test]
fn the_configuration_device_is_guarded_but_for_its_data() {
    let mut io = [0; crate::permission::IO_BYTES];
    let mut msr = [0; crate::permission::MSR_BYTES];
    Native::<Ram>::guard(
        &mut IoPermissions::open(&mut io),
        &mut MsrPermissions::open(&mut msr),
    );
    let is_guarded = |port: usize| io[port / 8] & 1 << (port % 8) != 0;
    // Firmware reads the data by string instructions, and finds what QEMU has there.
    assert!(is_guarded(0x510) && !is_guarded(0x511));
    assert!((0x514..0x51c).all(is_guarded));
}

#[test]
fn nobody_selects_an_item_while_a_transfer_goes_on() {
    let map = map();
    let (liar, transfers) = (Lock::new(Liar::honest()), Lock::new(Transfers::new()));
    let going_on = transfers.lock();
    let done = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut setup = Setup::new();
            let mut native = Native::new(&liar, &transfers, &map, Ram::new(0));
            write(&mut native, &mut setup, 0x510, 7);
            assert_eq!(setup.fake.out, [(0x510, 4, 7)]);
            done.store(true, core::sync::atomic::Ordering::SeqCst);
        });
        std::thread::sleep(core::time::Duration::from_millis(20));
        assert!(!done.load(core::sync::atomic::Ordering::SeqCst));
        drop(going_on);
    });
    assert!(done.into_inner());
}

#[test]
fn a_lying_host_answers_and_then_lies() {
    let script = svsm_sim::fault::Schedule::script("lying-cpuid@0,stray-interrupt@1,reset@2");
    let honest = svsm_sim::fault::Schedule::HONEST;
    let liar = Lock::new(Liar::new(script.unwrap(), honest));
    let mut setup = Setup::new();
    let mut vcpu = Vcpu::new(&mut setup.vmcb);
    let transfers = Lock::new(Transfers::new());
    let mut native = Native::new(&liar, &transfers, &setup.map, Ram::new(0));
    let mut exit =
        |vcpu: &mut Vcpu<'_>, exit| native.exit(exit, vcpu, 0, &setup.board, &mut setup.fake);
    assert_eq!(exit(&mut vcpu, Exit::Cpuid), Next::Resume);
    assert_ne!(vcpu.gprs.rcx, 0);
    assert_eq!(exit(&mut vcpu, Exit::Hlt), Next::Halt);
    assert!(vcpu.pending_interrupt().is_some());
    assert_eq!(exit(&mut vcpu, Exit::Cpuid), Next::End(Ending::Button));
    let told: Vec<serde_json::Value> = setup
        .fake
        .reports
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 3);
    assert_eq!(told[0]["name"], "lying-cpuid");
    assert_eq!(told[2]["number"], 2);
}
