//! Array kernels on the CPU: sampling under a bitmask, exact top-k, paged attention.
//!
//! Every kernel is written once over [`lanes::Lanes`], eight f32 at a time, and instantiated twice: with
//! AVX2, FMA and F16C where the processor has them (found at run time), and with plain arrays elsewhere. Three inner loops
//! have an AVX-512 form beside it: attention's step, masks over logits, and the 8-bit screen of cosines.
//! Results do not depend on the number of threads (`TOKAMASK_NUM_THREADS`, default all).
//!
//! The definitions are in `python/tokamask/reference/`: integer results and the sampler are equal to them bit
//! for bit, attention within float32 rounding.

// Kernels must be inlined into the function that enables the processor features, or the lanes become calls.
#![allow(clippy::inline_always)]
// Argument names of arrays are prose here.
#![allow(clippy::doc_markdown)]

pub mod append;
pub mod array;
pub mod attention;
pub mod bitmask;
mod blocks;
pub mod calibrate;
pub mod columns;
pub mod compress;
pub mod exp2;
pub mod floats;
pub mod greedy;
pub mod indexer;
mod lanes;
pub mod lightning;
pub mod linear;
mod nearest;
pub mod penalties;
pub mod press;
mod product;
pub mod quest;
pub mod reduction;
pub mod saliency;
pub mod sampling;
mod screen;
pub mod selection;
mod threads;
pub mod unmask;
pub mod verify;
pub mod votes;

pub use crate::random;

#[cfg(test)]
mod portable_tests;
