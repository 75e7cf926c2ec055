//! What a guest learns when it asks an SVSM which protocols it speaks.

use svsm_protocol::{
    Arguments, CallId, CoreCall, Dispatcher, Outcome, Protocol, ProtocolId, Registers, ResultCode,
    Versions,
};

struct Attestation;

impl Protocol for Attestation {
    fn id(&self) -> ProtocolId {
        ProtocolId::ATTEST
    }

    fn versions(&self) -> Versions {
        Versions::only(1)
    }

    fn call(&mut self, _call: u32, _arguments: &mut Arguments) -> Outcome {
        Err(ResultCode::UNSUPPORTED_CALL)
    }
}

fn main() -> Result<(), svsm_protocol::DuplicateProtocol> {
    let mut attestation = Attestation;
    let mut dispatcher = Dispatcher::new([&mut attestation as &mut dyn Protocol])?;
    let names = [
        (ProtocolId::CORE, "core"),
        (ProtocolId::ATTEST, "attestation"),
        (ProtocolId::VTPM, "vTPM"),
    ];
    for (protocol, name) in names {
        let query = CallId {
            protocol: ProtocolId::CORE,
            call: CoreCall::QUERY_PROTOCOL.0,
        };
        let wanted = CallId { protocol, call: 1 };
        let mut registers = Registers {
            rax: query.to_rax(),
            rcx: wanted.to_rax(),
            rdx: 0,
            r8: 0,
            r9: 0,
        };
        dispatcher.dispatch(&mut registers);
        let answer = if registers.rcx == 0 {
            "not there"
        } else {
            "there"
        };
        println!("{name:12} version 1: {answer}");
    }
    Ok(())
}
