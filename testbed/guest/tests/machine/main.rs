//! All guests, in the software machine.
#![cfg(test)]
#![expect(clippy::print_stderr, reason = "tests say why they skip")]

mod debugger; // a debugger of the guest
mod lab; // how a guest is run
mod lies; // a host that lies
mod native; // nothing that protects it
mod seeing; // what a run shows
mod snp; // SEV-SNP
