// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The only home of system calls on files: descriptor-relative access, durable writes, locks, maps.
//!
//! Everything inside an area is reached through a held [`Dir`] and one path component at a time, so a neighbour who
//! swaps a directory for a symlink between two calls gains nothing. Path-based calls are banned elsewhere
//! (`clippy.toml`).
//!
//! Invariant: knows files, not formats. No other module opens, creates, renames or removes anything.

mod attrs;
mod below;
mod clone;
mod dir;
mod durable;
mod local;
mod lock;
mod map;
mod mounts;
mod process;
mod record_lock;
#[cfg(feature = "faults")]
pub mod script;
mod stat;
mod sys;
mod write;

pub use attrs::{
    ACL_ACCESS, ACL_DEFAULT, CAPABILITIES, FdAttrs, NameAttrs, decode_acl, encode_acl, xattr_namespace_of_acl,
};
pub use below::{is_symlink_refused, is_unopenable};
pub use clone::{can_share_content, clone_or_copy};
pub use dir::{Dir, Replace};
pub use durable::{AppendFile, Batch, ScratchFile, TempFile, is_temporary, publish_file, sweep_temporaries, sync_file};
pub use local::{
    DataRun, OpenFile, Space, canonicalize, create_dir, create_dir_all, data_runs, exists, file_len, gid_of_name,
    group_name, hostname, link, list_dir, now, now_coarse, owner_name, raise_open_files, read_at, read_capped,
    read_exact_at, remove_file, remove_tree, rename, space, sync_dir, sync_filesystem, sync_tree, uid_of_name,
};
pub use lock::Lock;
pub use map::Mapped;
pub use mounts::mount_points;
pub use process::{Mapping, Process, process_ids};
pub use record_lock::{RecordLock, TriedLock};
pub use stat::{FileType, Stat};
pub use write::{effective_owner, groups, set_len, write_all_at};
