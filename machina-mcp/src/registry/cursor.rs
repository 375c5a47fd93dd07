//! Where a page ends, in letters that need no encoding in an address.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machina_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::parameters::Filter;

/// The longest cursor that is read.
const CURSOR_MAX: usize = 4096;

/// The place of an entry in the list, which is ordered by this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) updated_at: Timestamp,
    pub(super) name: String,
    pub(super) version: String,
}

/// Everything that the next page needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) limit: u32,
    pub(super) filter: Filter,
    pub(super) after: Position,
}

/// A cursor as JSON: the first number is the form's own version.
type Wire = (u8, u32, Option<String>, Option<Timestamp>, Option<String>, bool, Position);

impl Cursor {
    pub(super) fn text(self) -> String {
        let Filter { search, updated_since, version, include_deleted } = self.filter;
        let wire: Wire = (1, self.limit, search, updated_since, version, include_deleted, self.after);
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::parameter("cursor", "is not a cursor: send `nextCursor` of a page as it is");
        if text.len() > CURSOR_MAX {
            return Err(wrong());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        match serde_json::from_slice::<Wire>(&bytes) {
            Ok((1, limit, search, updated_since, version, include_deleted, after)) => {
                let filter = Filter { search, updated_since, version, include_deleted };
                Ok(Self { limit, filter, after })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_cursor() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let long = "A".repeat(CURSOR_MAX + 1);
        for text in ["x", "%%", "🦀", &encoded("{}"), &encoded("[2,1,null,null,null,false,null]"), &long] {
            assert_eq!(Cursor::parse(text).unwrap_err().body()["errors"][0]["location"], "query.cursor");
        }
    }
}
