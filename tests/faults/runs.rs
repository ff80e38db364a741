//! What the plain fold keeps of closed bill runs. Here all are open at the end, so it keeps nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// By run, customer and line: what a row says.
pub(crate) type StoredRows = BTreeMap<(i64, i64, i64), Value>;
