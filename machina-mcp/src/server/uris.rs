//! The uris of resources: which are Machina's own, and how one of a service is
//! written where its own uri would not say which service is meant. Pure.

/// What the uri of a service begins with; its name follows.
pub(super) const SERVICES: &str = "machina://services/";
/// The same under the name that earlier gateways gave it.
pub(super) const SERVICE_DOCUMENTATION: &str = "machina://service_documentation/";
/// What stands between the name of a service and the uri of a resource of its own.
const RESOURCES: &str = "/resources/";
/// What every uri of Machina's own begins with.
const OWN: &str = "machina:";
/// The longest uri that is matched with templates, in bytes, and the most parts
/// of a template.
const MATCHED_BYTES_MAX: usize = 8 * 1024;
const PARTS_MAX: usize = 64;
/// Where the name of a service has ended at the latest, in bytes: no name is as long.
const SERVICE_BYTES_MAX: usize = 256;

/// The uri, or uri template, that says which service offers `uri`. That stands
/// at its end word for word: a template stays one, and nothing is to be decoded.
pub(super) fn of_service(service: &str, uri: &str) -> String {
    format!("{SERVICES}{service}{RESOURCES}{uri}")
}

/// Whether a uri of an upstream looks like one of Machina's own.
pub(super) fn is_own(uri: &str) -> bool {
    uri.get(..OWN.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN))
}

/// The services and uris of their own that `uri` may consist of: a service name
/// may end like the word between them.
pub(super) fn split(uri: &str) -> impl Iterator<Item = (&str, &str)> {
    let rest = uri.strip_prefix(SERVICES).unwrap_or_default();
    // Without its last slash, for two of them may share it.
    let places = rest.match_indices(RESOURCES.trim_end_matches('/'));
    let parts = places
        .take_while(|(at, _)| *at <= SERVICE_BYTES_MAX)
        .filter_map(|(at, word)| Some((&rest[..at], rest[at + word.len()..].strip_prefix('/')?)));
    parts.filter(|(_, uri)| is_absolute(uri))
}

/// Whether `uri` begins with a scheme.
fn is_absolute(uri: &str) -> bool {
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// The same for templates that differ only in how they call their variables, and
/// so can become the same uris.
pub(super) fn shape(uri: &str) -> String {
    let (mut shape, mut rest) = (String::with_capacity(uri.len()), uri);
    while let Some((literal, (expression, after))) =
        rest.split_once('{').and_then(|(literal, after)| Some((literal, after.split_once('}')?)))
    {
        let operator = expression.get(..1).filter(|first| "+#./;?&".contains(first)).unwrap_or_default();
        shape.extend([literal, "{", operator, "}"]);
        rest = after;
    }
    shape.push_str(rest);
    shape
}

/// A uri template (RFC 6570), to tell which uris it can become.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(String),
    /// At least one character, none of which `stops`.
    Run {
        stops: &'static [u8],
    },
    /// Nothing, or `begins` and any characters, none of which `stops`.
    Optional {
        begins: u8,
        stops: &'static [u8],
    },
}

impl Template {
    /// `None` if `text` is none, or one with too many parts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once('{') {
            let (expression, after) = after.split_once('}')?;
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(Part::of(expression)?);
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        (parts.len() <= PARTS_MAX).then_some(Self(parts))
    }

    /// Whether the template can become `uri`.
    pub(super) fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        if uri.len() > MATCHED_BYTES_MAX {
            return false;
        }
        // Where in `uri` the parts so far can end.
        let mut ends = vec![false; uri.len() + 1];
        ends[0] = true;
        for part in &self.0 {
            ends = part.ends(uri, &ends);
        }
        ends[uri.len()]
    }
}

impl Part {
    fn of(expression: &str) -> Option<Self> {
        Some(match expression.as_bytes().first()? {
            b'+' => Self::Run { stops: b"" },
            b'#' => Self::Optional { begins: b'#', stops: b"" },
            b'.' => Self::Optional { begins: b'.', stops: b"/?#" },
            b'/' => Self::Optional { begins: b'/', stops: b"?#" },
            b';' => Self::Optional { begins: b';', stops: b"/?#" },
            b'?' => Self::Optional { begins: b'?', stops: b"#" },
            b'&' => Self::Optional { begins: b'&', stops: b"#" },
            _ => Self::Run { stops: b"/?#" },
        })
    }

    /// Where the part can end that begins at one of `starts`.
    fn ends(&self, uri: &[u8], starts: &[bool]) -> Vec<bool> {
        let mut ends = vec![false; starts.len()];
        match self {
            Self::Literal(literal) => {
                for (at, _) in starts.iter().enumerate().filter(|(_, starts)| **starts) {
                    if uri[at..].starts_with(literal.as_bytes()) {
                        ends[at + literal.len()] = true;
                    }
                }
            }
            Self::Run { stops } => {
                for (at, byte) in uri.iter().enumerate() {
                    ends[at + 1] = (starts[at] || ends[at]) && !stops.contains(byte);
                }
            }
            Self::Optional { begins, stops } => {
                for (at, byte) in uri.iter().enumerate() {
                    let goes_on = ends[at] && !stops.contains(byte);
                    ends[at + 1] = goes_on || (starts[at] && byte == begins);
                }
                for (end, start) in ends.iter_mut().zip(starts) {
                    *end |= start;
                }
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_of_a_service_splits_into_what_it_was_made_of() {
        for (service, uri) in [
            ("web", "test://a/b?c=d#e"),
            ("io.github.someone/resources", "file:///resources/x"),
            ("disk", "machina://services/web"),
            ("disk", "file:///{path}"),
        ] {
            let whole = of_service(service, uri);
            assert!(is_own(&whole) && split(&whole).any(|parts| parts == (service, uri)), "{whole}");
        }
        assert_eq!(split("machina://services/web").count(), 0);
        assert_eq!(split("machina://services/web/resources/").count(), 0);
        assert_eq!(split("machina://services/a/resources/resources/x:y").collect::<Vec<_>>(), [("a/resources", "x:y")]);
        let many = format!("machina://services/a{}", "/resources/x:".repeat(1000));
        assert_eq!(split(&many).count(), 20, "each is a service to be looked for");
        assert!(is_own("MACHINA://x") && !is_own("mach") && !is_own("ma\u{df}hina:"));
    }

    #[test]
    fn the_shape_of_a_template_hangs_not_on_the_names_of_its_variables() {
        assert_eq!(shape("a:{x}/{+y}?{z"), "a:{}/{+}?{z");
        assert_eq!(shape("a:{ü}"), shape("a:{other}"));
        assert_ne!(shape("a:{+x}"), shape("a:{x}"));
        assert_eq!(shape("test://plain"), "test://plain");
    }

    #[test]
    fn a_template_matches_what_it_can_become() {
        for (template, yes, no) in [
            ("test://template/{id}/data", "test://template/12%203/data", "test://template/1/2/data"),
            ("test://template/{id}/data", "test://template/a/data", "test://template//data"),
            ("file:///{+path}", "file:///a/b?c#d", "file:///"),
            ("a:{x}{y}", "a:bc", "a:b"),
            ("a:b{?q,r}", "a:b?q=1&r=2", "a:bq=1"),
            ("a:b{?q}", "a:b", "a:b#x"),
            ("a:b{/segments*}", "a:b/c/d", "a:bc/d"),
            ("a:b{.ext}", "a:b.txt", "a:b/.txt"),
            ("a:b{#part}", "a:b#x/y", "a:bx"),
            ("a:b{;x}c", "a:b;x=1c", "a:b;x=1"),
            ("a:b?c=1{&d}", "a:b?c=1&d=2", "a:b?c=2"),
            ("a:plain", "a:plain", "a:plainer"),
            ("ü:{x}", "ü:ß", "u:ß"),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert!(parsed.matches(yes), "{template} {yes}");
            assert!(!parsed.matches(no), "{template} {no}");
        }
    }

    #[test]
    fn what_is_no_template_or_too_long_is_refused() {
        assert!(Template::parse("a:{x").is_none() && Template::parse("a:{}").is_none());
        assert!(Template::parse(&"{x}".repeat(PARTS_MAX)).is_none());
        let long = format!("a:{}", "b".repeat(MATCHED_BYTES_MAX));
        assert!(!Template::parse("a:{x}").unwrap().matches(&long));
        // Many ways to match cost no more than one.
        let many = Template::parse(&format!("a:{}!", "{x}".repeat(30))).unwrap();
        assert!(!many.matches(&long[..4000]));
    }
}
