#![cfg_attr(target_os = "none", no_std)]
#![doc = include_str!("../README.md")]

pub mod layout; // addresses that image and guest agree on

#[cfg(not(target_os = "none"))]
pub mod image; // IGVM files of the guests

#[cfg(target_os = "none")]
pub mod bare; // what every guest needs
#[cfg(target_os = "none")]
pub mod cases; // the guests
