// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tree switch: a complete new tree is made beside the old one, and both change places in one step.
//!
//! ```text
//! ROOT/.evenkeel/staging/0          the new tree, while it is made
//! PARENT/.evenkeel-<area id>/tree   (0700) the new tree, ready; after the exchange the old one
//! ROOT/.evenkeel/staging/0          the old tree, until the transaction ends; then undo/<number>/0
//! ```
//!
//! - [`conditions`] says whether it can be done at all; [`whole`] makes a plan of everything from the plan of what differs.
//! - [`exchange`] carries it out, on, or part of the way back; inode numbers tell how far it came.
//! - [`back`] turns it around.
//!
//! `.evenkeel` goes over to the new tree in a second exchange, so that the new tree has one at every instant: until then it
//! has a copy of the marker, and a lock that is held as well.

mod back;
mod conditions;
mod exchange;
mod image;
mod whole;

pub(super) use back::turned_around;
pub(super) use conditions::{check, check_unused};
pub(super) use exchange::switch;
pub(super) use image::{Image, inodes_of, rights_of};
pub(super) use whole::{WholeTree, can_exchange, changes_of};
