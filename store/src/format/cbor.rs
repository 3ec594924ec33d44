// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deterministic CBOR (RFC 8949 §4.2.1): the strict reader and the writer that every document uses.
