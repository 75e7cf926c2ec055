//! A stub for guests of SEV-SNP that start without firmware: it validates memory, and goes on to the kernel.
//!
//! A kernel that starts so expects all RAM to be the guest's and valid. Whoever launches it gives the guest its pages, but
//! only the guest can validate them. The stub does that for a list of ranges, in pages of 2 MiB where it can. A page that
//! turns out to be valid already was validated by somebody else, which nobody honest does: it ends the guest.

/// The instructions. They run wherever they are, in 64-bit mode at CPL 0, and use no stack.
///
/// RDI points to pairs of words: the first address of a range and the address behind it, both multiples of 4096; a pair
/// whose words are equal ends the list. RDX is where to go then. RSI stays as it is, for the kernel's boot parameters.
///
/// ```text
/// 00:  mov   r10, rdx              ; where to go
/// 03:  mov   r8, [rdi]             ; next range: its start
/// 06:  mov   r9, [rdi+8]           ; and its end
/// 0a:  add   rdi, 16
/// 0e:  cmp   r8, r9
/// 11:  jae   5d                    ; the list is over
/// 13:  test  r8d, 0x1fffff         ; next page: large?
/// 1a:  jne   3f
/// 1c:  lea   rax, [r8+0x200000]
/// 23:  cmp   rax, r9
/// 26:  ja    3f
/// 28:  mov   rax, r8
/// 2b:  mov   ecx, 1
/// 30:  mov   edx, 1
/// 35:  pvalidate
/// 39:  jmp   60
/// 3b:  (padding)
/// 3f:  mov   rax, r8               ; small
/// 42:  xor   ecx, ecx
/// 44:  mov   edx, 1
/// 49:  pvalidate
/// 4d:  jb    7b                    ; it was valid
/// 4f:  test  eax, eax
/// 51:  jne   7b
/// 53:  add   r8, 0x1000
/// 5a:  jmp   73
/// 5c:  (padding)
/// 5d:  jmp   r10
/// 60:  setb  bl
/// 63:  cmp   eax, 6                ; pages are small here
/// 66:  je    3f
/// 68:  or    al, bl
/// 6a:  jne   7b
/// 6c:  add   r8, 0x200000
/// 73:  cmp   r8, r9                ; more of this range?
/// 76:  jb    13
/// 78:  jmp   03
/// 7a:  (padding)
/// 7b:  mov   ecx, 0xc0010130       ; ask the host for the end: PVALIDATE failed
/// 80:  mov   eax, 0x21100
/// 85:  xor   edx, edx
/// 87:  wrmsr
/// 89:  rep vmmcall
/// 8d:  hlt
/// 8e:  jmp   7b
/// ```
pub const CODE: [u8; 0x90] = [
    0x49, 0x89, 0xd2, // mov r10, rdx
    0x4c, 0x8b, 0x07, // mov r8, [rdi]
    0x4c, 0x8b, 0x4f, 0x08, // mov r9, [rdi+8]
    0x48, 0x83, 0xc7, 0x10, // add rdi, 16
    0x4d, 0x39, 0xc8, // cmp r8, r9
    0x73, 0x4a, // jae 5d
    0x41, 0xf7, 0xc0, 0xff, 0xff, 0x1f, 0x00, // test r8d, 0x1fffff
    0x75, 0x23, // jne 3f
    0x49, 0x8d, 0x80, 0x00, 0x00, 0x20, 0x00, // lea rax, [r8+0x200000]
    0x4c, 0x39, 0xc8, // cmp rax, r9
    0x77, 0x17, // ja 3f
    0x4c, 0x89, 0xc0, // mov rax, r8
    0xb9, 0x01, 0x00, 0x00, 0x00, // mov ecx, 1
    0xba, 0x01, 0x00, 0x00, 0x00, // mov edx, 1
    0xf2, 0x0f, 0x01, 0xff, // pvalidate
    0xeb, 0x25, // jmp 60
    0xcc, 0xcc, 0xcc, 0xcc, // padding
    0x4c, 0x89, 0xc0, // mov rax, r8
    0x31, 0xc9, // xor ecx, ecx
    0xba, 0x01, 0x00, 0x00, 0x00, // mov edx, 1
    0xf2, 0x0f, 0x01, 0xff, // pvalidate
    0x72, 0x2c, // jb 7b
    0x85, 0xc0, // test eax, eax
    0x75, 0x28, // jne 7b
    0x49, 0x81, 0xc0, 0x00, 0x10, 0x00, 0x00, // add r8, 0x1000
    0xeb, 0x17, // jmp 73
    0xcc, // padding
    0x41, 0xff, 0xe2, // jmp r10
    0x0f, 0x92, 0xc3, // setb bl
    0x83, 0xf8, 0x06, // cmp eax, 6
    0x74, 0xd7, // je 3f
    0x08, 0xd8, // or al, bl
    0x75, 0x0f, // jne 7b
    0x49, 0x81, 0xc0, 0x00, 0x00, 0x20, 0x00, // add r8, 0x200000
    0x4d, 0x39, 0xc8, // cmp r8, r9
    0x72, 0x9b, // jb 13
    0xeb, 0x89, // jmp 03
    0xcc, // padding
    0xb9, 0x30, 0x01, 0x01, 0xc0, // mov ecx, 0xc0010130
    0xb8, 0x00, 0x11, 0x02, 0x00, // mov eax, 0x21100
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xf3, 0x0f, 0x01, 0xd9, // rep vmmcall
    0xf4, // hlt
    0xeb, 0xeb, // jmp 7b
];

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
    use std::vec::Vec;

    /// What another decoder makes of it, padding and the instruction that it may not know left out.
    fn decoded() -> Vec<(u64, Mnemonic, FlowControl, u64)> {
        let mut decoder = Decoder::with_ip(64, &CODE, 0, DecoderOptions::NONE);
        decoder
            .iter()
            .map(|i| {
                (
                    i.ip(),
                    i.mnemonic(),
                    i.flow_control(),
                    i.near_branch_target(),
                )
            })
            .collect()
    }

    #[test]
    fn every_jump_lands_on_an_instruction() {
        let code = decoded();
        let starts: Vec<u64> = code.iter().map(|(at, ..)| *at).collect();
        let jumps: Vec<_> = code
            .iter()
            .filter(|(_, _, flow, _)| {
                matches!(
                    flow,
                    FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
                )
            })
            .map(|(at, _, _, target)| (*at, *target))
            .collect();
        for (at, target) in &jumps {
            assert!(starts.contains(target), "{at:#x} jumps to {target:#x}");
        }
        let expected = [
            (0x11, 0x5d),
            (0x1a, 0x3f),
            (0x26, 0x3f),
            (0x39, 0x60),
            (0x4d, 0x7b),
            (0x51, 0x7b),
            (0x5a, 0x73),
            (0x66, 0x3f),
            (0x6a, 0x7b),
            (0x76, 0x13),
            (0x78, 0x03),
            (0x8e, 0x7b),
        ];
        assert_eq!(jumps, expected);
    }

    #[test]
    fn memory_is_validated_and_nothing_else_is_touched() {
        let code = decoded();
        let count = |mnemonic| code.iter().filter(|(_, m, ..)| *m == mnemonic).count();
        assert_eq!(count(Mnemonic::Pvalidate), 2);
        assert_eq!(count(Mnemonic::Wrmsr), 1);
        assert_eq!(count(Mnemonic::Push) + count(Mnemonic::Call), 0);
    }
}
