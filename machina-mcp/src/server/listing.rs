//! A list as hosts read it: the JSON text of its entries, made once, of which
//! each page is a slice. Knows nothing of what the entries are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use machina_core::{Scoped, ServiceHealth, ServiceName, Status};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::protocol::{FRESH, Reply};
use super::rpc::{Fault, INVALID_PARAMS, Object};

/// How many entries a page has at most, and how many bytes of JSON unless its
/// first entry alone has more.
const PAGE_ENTRIES_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The key in `_meta` of a list under which services are named whose entries are
/// those that were last known, because nobody answers there now.
const STALE: &str = "dev.machina/stale";

/// The entries of one list.
#[derive(Debug)]
pub(super) struct Listing {
    /// The member of a result under which they stand, such as `tools`.
    field: &'static str,
    /// All of them, with commas between.
    text: String,
    places: Vec<Place>,
    /// Each with whether an entry is what the service itself publishes.
    services: Vec<(String, bool)>,
    digest: u64,
}

/// Where an entry stands.
#[derive(Debug)]
struct Place {
    /// Of its service among those of the list.
    service: usize,
    /// Among the entries of its service.
    place: usize,
    /// Where its text ends.
    end: usize,
}

/// The text of some entries that stand beside each other.
#[derive(Debug, Clone)]
pub(crate) struct Entries {
    listing: Arc<Listing>,
    bytes: Range<usize>,
}

impl Entries {
    /// The member of a result under which they stand.
    pub(super) fn field(&self) -> &'static str {
        self.listing.field
    }

    /// Their text, with commas between.
    pub(super) fn text(&self) -> &str {
        &self.listing.text[self.bytes.clone()]
    }
}

impl Listing {
    /// A list without entries.
    pub(super) fn new(field: &'static str) -> Self {
        Self { field, text: String::new(), places: Vec::new(), services: Vec::new(), digest: 0 }
    }

    /// Adds the entry that has this place among those that `service` publishes.
    /// Services come by name, and the places of each in order.
    pub(super) fn push(&mut self, service: &ServiceName, place: usize, entry: &impl Serialize) {
        self.push_own(service.as_str(), place, entry);
        if let Some((_, publishes)) = self.services.last_mut() {
            *publishes = true;
        }
    }

    /// The same for an entry of Machina's own, which is never stale. Those of no
    /// service come first.
    pub(super) fn push_own(&mut self, service: &str, place: usize, entry: &impl Serialize) {
        if self.services.last().is_none_or(|(last, _)| last != service) {
            self.services.push((service.to_owned(), false));
        }
        if !self.places.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&serde_json::to_string(entry).expect("JSON values have texts"));
        self.places.push(Place { service: self.services.len() - 1, place, end: self.text.len() });
    }

    /// The list, complete.
    pub(super) fn finished(mut self) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        self.digest = hasher.finish();
        self.text.shrink_to_fit();
        Arc::new(self)
    }

    /// All of it, as one page.
    pub(super) fn whole(self: &Arc<Self>) -> Entries {
        Entries { listing: Arc::clone(self), bytes: 0..self.text.len() }
    }

    /// Another number for another text.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The page that `params` asks for, and which of its services do not answer now.
    pub(super) fn page(self: &Arc<Self>, scoped: &Scoped, params: &Object) -> Result<Reply, Fault> {
        let first = match params.get("cursor") {
            None | Some(Value::Null) => 0,
            Some(cursor) => {
                let wrong = || Fault::new(INVALID_PARAMS, "cursor: is not one of this server");
                self.after(&cursor.as_str().and_then(read_cursor).ok_or_else(wrong)?)
            }
        };
        let end = self.end_of_page(first);
        let mut result = Object::new();
        if first < end && end < self.places.len() {
            result.insert("nextCursor".to_owned(), self.cursor_after(&self.places[end - 1]).into());
        }
        let services = match first < end {
            true => &self.services[self.places[first].service..=self.places[end - 1].service],
            false => &[],
        };
        let stale = stale(scoped, services);
        if !stale.is_empty() {
            result.insert("_meta".to_owned(), json!({ STALE: stale }));
        }
        let bytes = self.begin(first)..end.checked_sub(1).map_or(0, |last| self.places[last].end);
        let bytes = if first < end { bytes } else { 0..0 };
        Ok(Reply::listed(Entries { listing: Arc::clone(self), bytes }, result, FRESH))
    }

    /// Where the text of an entry begins.
    fn begin(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.places[before].end + 1,
            None => 0,
        }
    }

    /// The first entry after the one that a cursor names, be it still there or not.
    fn after(&self, (service, place): &(String, usize)) -> usize {
        let named = |entry: &Place| (&*self.services[entry.service].0, entry.place) <= (service.as_str(), *place);
        self.places.partition_point(named)
    }

    fn end_of_page(&self, first: usize) -> usize {
        let last = self.places.len().min(first + PAGE_ENTRIES_MAX);
        let begin = self.begin(first.min(self.places.len()));
        let fitting = self.places[first..last].partition_point(|entry| entry.end - begin <= PAGE_BYTES_MAX);
        last.min(first + fitting.max(1))
    }

    fn cursor_after(&self, entry: &Place) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}:{}", entry.place, self.services[entry.service].0))
    }
}

fn read_cursor(cursor: &str) -> Option<(String, usize)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (place, service) = text.split_once(':')?;
    Some((service.to_owned(), place.parse().ok()?))
}

/// Those of `services` from which nobody answers now, each with its status and
/// since when.
fn stale(scoped: &Scoped, services: &[(String, bool)]) -> Vec<Value> {
    let published = services.iter().filter(|(_, publishes)| *publishes);
    let views = published.filter_map(|(service, _)| scoped.service(service).ok());
    let silent = views.filter(|view| !matches!(view.status(), Status::Healthy | Status::Degraded));
    silent
        .map(|view| {
            let ServiceHealth { service, status, health, .. } = ServiceHealth::from(&*view);
            json!({"service": service, "status": status, "since": health.since})
        })
        .collect()
}

/// A definition with one of its members replaced, in its old place: the order of
/// keys is the server's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renamed<'a> {
    pub(super) definition: &'a Object,
    pub(super) key: &'static str,
    pub(super) value: &'a str,
}

impl Serialize for Renamed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.definition.len()))?;
        for (key, value) in self.definition {
            if key == self.key {
                map.serialize_entry(key, self.value)?;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of entries of so many bytes, two of each service.
    fn listing(bytes: &[usize]) -> Arc<Listing> {
        let mut listing = Listing::new("things");
        for (index, bytes) in bytes.iter().enumerate() {
            let service = ServiceName::new(&format!("s{:04}", index / 2)).unwrap();
            listing.push(&service, index % 2, &"x".repeat(bytes - 2));
        }
        listing.finished()
    }

    #[test]
    fn a_page_ends_before_it_is_too_long_and_has_an_entry_at_least() {
        const MIB: usize = 1024 * 1024;
        let list = listing(&[MIB, MIB - 1, 10, 3 * MIB, 10]);
        let ends: Vec<usize> = (0..=5).map(|first| list.end_of_page(first)).collect();
        assert_eq!(ends, [2, 3, 3, 4, 5, 5]);
        let many = listing(&[2; 1001]);
        assert_eq!((many.end_of_page(0), many.end_of_page(1000)), (1000, 1001));
        assert_eq!(listing(&[]).end_of_page(0), 0);
    }

    #[test]
    fn a_cursor_goes_on_after_the_entry_it_names_be_it_there_or_not() {
        let list = listing(&[5; 6]);
        for (index, place) in list.places.iter().enumerate() {
            let cursor = read_cursor(&list.cursor_after(place)).unwrap();
            assert_eq!(list.after(&cursor), index + 1);
            assert_eq!(&list.text[list.begin(index)..place.end], r#""xxx""#);
        }
        assert_eq!(list.after(&("s0000a".to_owned(), 7)), 2);
        assert_eq!(list.after(&("t".to_owned(), 0)), 6);
        for wrong in ["%", "eA", ""] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn another_list_has_another_number() {
        assert_eq!(listing(&[5, 6]).digest(), listing(&[5, 6]).digest());
        assert_ne!(listing(&[5, 6]).digest(), listing(&[6, 5]).digest());
    }

    #[test]
    fn a_definition_is_renamed_in_its_place() {
        let definition = crate::server::rpc::object(json!({"z": 1, "name": "old", "a": {"name": "old"}}));
        let renamed = Renamed { definition: &definition, key: "name", value: "n\"ew" };
        assert_eq!(serde_json::to_string(&renamed).unwrap(), r#"{"z":1,"name":"n\"ew","a":{"name":"old"}}"#);
    }
}
