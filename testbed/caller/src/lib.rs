#![cfg_attr(target_os = "none", no_std)]
#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "none"))]
pub mod image; // the file that a loader takes for a kernel

#[cfg(target_os = "none")]
pub mod bare; // from the first instruction on
#[cfg(target_os = "none")]
mod call; // calls of the SVSM
#[cfg(target_os = "none")]
mod figures; // what calls cost
#[cfg(target_os = "none")]
mod hostile; // calls that no kernel makes
#[cfg(target_os = "none")]
mod services; // which services there are
#[cfg(target_os = "none")]
mod tpm; // commands to the TPM
