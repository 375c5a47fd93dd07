//! The parameters of a request, read strictly: a wrong one is named. One that is
//! empty counts as absent, and one that nobody knows is passed over, as the
//! official registry does.

use std::collections::BTreeMap;

use machina_core::Timestamp;

use super::cursor::{Cursor, Position};
use super::failure::Failure;

const LIMIT: u32 = 30;
const LIMIT_MAX: u32 = 100;
/// How many characters a text to search for, and a version, may have.
const TEXT_MAX: usize = 255;

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub(super) limit: usize,
    pub(super) filter: Filter,
    /// The last entry of the page before.
    pub(super) after: Option<Position>,
}

/// Which servers are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// A part of the name, in small letters.
    pub(super) search: Option<String>,
    pub(super) updated_since: Option<Timestamp>,
    /// One version; `None` for the latest, of which each service has one.
    pub(super) version: Option<String>,
    pub(super) include_deleted: bool,
}

/// The parameters of a query string, each once.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn parse(query: &str) -> Result<Self, Failure> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if value.is_empty() {
                continue;
            }
            let known = ["cursor", "limit", "search", "updated_since", "version", "include_deleted"];
            if let Some(name) = known.iter().find(|known| **known == name)
                && parameters.insert((*name).to_owned(), value.into_owned()).is_some()
            {
                return Err(Failure::parameter(name, "must be given once"));
            }
        }
        Ok(Self(parameters))
    }

    /// What a list is asked for. A cursor brings along what the first page was
    /// asked for, since hosts do not say it again.
    pub(super) fn list(&self) -> Result<ListQuery, Failure> {
        let cursor = self.text("cursor").map(Cursor::parse).transpose()?;
        let limit = self.limit()?.or_else(|| cursor.as_ref().map(|cursor| cursor.limit)).unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Failure::parameter("limit", "must be 1 to 100"));
        }
        let said = self.filter()?;
        let (filter, after) = match cursor {
            None => (said, None),
            Some(cursor) => {
                self.agrees(&said, &cursor.filter)?;
                (cursor.filter, Some(cursor.after))
            }
        };
        Ok(ListQuery { limit: limit as usize, filter, after })
    }

    /// Whether entries that are gone are wanted.
    pub(super) fn include_deleted(&self) -> Result<bool, Failure> {
        match self.text("include_deleted") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Failure::parameter("include_deleted", "must be true or false")),
        }
    }

    fn filter(&self) -> Result<Filter, Failure> {
        let updated_since = self.text("updated_since").map(|text| {
            let wrong = || Failure::parameter("updated_since", "must be a time such as 2025-08-07T13:15:04.280Z");
            // A `+` that was not encoded has become a space.
            text.replace(' ', "+").parse::<Timestamp>().map_err(|_| wrong())
        });
        let updated_since = updated_since.transpose()?;
        let search = self.short("search")?.map(str::to_lowercase);
        let version = self.short("version")?.filter(|version| *version != "latest").map(str::to_owned);
        let include_deleted = self.include_deleted()? || updated_since.is_some();
        Ok(Filter { search, updated_since, version, include_deleted })
    }

    /// Refuses to go on with another question than the cursor was given for.
    fn agrees(&self, said: &Filter, first: &Filter) -> Result<(), Failure> {
        let pairs = [
            ("search", said.search == first.search),
            ("updated_since", said.updated_since == first.updated_since),
            ("version", said.version == first.version),
            ("include_deleted", said.include_deleted == first.include_deleted),
        ];
        match pairs.into_iter().find(|(name, same)| !same && self.0.contains_key(*name)) {
            Some((name, _)) => Err(Failure::parameter(name, "must be what it was on the page that gave the cursor")),
            None => Ok(()),
        }
    }

    fn limit(&self) -> Result<Option<u32>, Failure> {
        let number =
            self.text("limit").map(|text| text.parse().map_err(|_| Failure::parameter("limit", "must be 1 to 100")));
        number.transpose()
    }

    fn short(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.text(name) {
            Some(text) if text.chars().count() > TEXT_MAX => {
                Err(Failure::parameter(name, "must have at most 255 characters"))
            }
            text => Ok(text),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListQuery, Failure> {
        Parameters::parse(query)?.list()
    }

    fn position() -> Position {
        Position { updated_at: Timestamp::UNIX_EPOCH, name: "a/b".to_owned(), version: "1".to_owned() }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let query = list("search=&cursor=&utm=1").unwrap();
        assert_eq!(query, ListQuery { limit: 30, filter: Filter::default(), after: None });
        let query = list("search=TIME&version=latest&limit=100&updated_since=2025-08-07T13:15:04.280+02:00").unwrap();
        assert_eq!((query.limit, query.filter.search.as_deref(), query.filter.version), (100, Some("time"), None));
        assert_eq!(query.filter.updated_since.unwrap().to_string(), "2025-08-07T11:15:04.28Z");
        assert!(query.filter.include_deleted, "whoever asks for changes is told of deletions");
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let long = "x".repeat(256);
        for (query, wrong) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=ten", "limit"),
            ("limit=1&limit=2", "limit"),
            ("updated_since=yesterday", "updated_since"),
            ("updated_since=2025-08-07", "updated_since"),
            ("include_deleted=1", "include_deleted"),
            ("cursor=x", "cursor"),
            (&format!("search={long}"), "search"),
            (&format!("version={long}"), "version"),
        ] {
            let failure = list(query).unwrap_err();
            assert_eq!(failure.body()["errors"][0]["location"], format!("query.{wrong}"), "{query}");
        }
    }

    #[test]
    fn a_cursor_brings_the_question_along() {
        let first = list("search=a&limit=7&include_deleted=true").unwrap();
        let cursor = Cursor { limit: 7, filter: first.filter.clone(), after: position() }.text();
        assert!(cursor.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')), "{cursor}");
        let wanted = ListQuery { after: Some(position()), ..first };
        assert_eq!(list(&format!("cursor={cursor}")).unwrap(), wanted);
        assert_eq!(list(&format!("cursor={cursor}&search=A&limit=9")).unwrap(), ListQuery { limit: 9, ..wanted });
        for other in ["search=b", "include_deleted=false", "version=1", "updated_since=2025-01-01T00:00:00Z"] {
            let name = other.split('=').next().unwrap();
            let failure = list(&format!("cursor={cursor}&{other}")).unwrap_err();
            assert_eq!(failure.body()["errors"][0]["location"], format!("query.{name}"));
        }
    }
}
