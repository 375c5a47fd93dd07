//! What the farm and those who use it say to each other.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What may be done with a call, which follows from its tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing (`readOnlyHint`).
    ReadOnly,
    /// Changes nothing more the second time (`idempotentHint`).
    Idempotent,
    /// May be repeated where the caller gives an idempotency key.
    Keyed,
    /// Changes something each time.
    NotRepeatable,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Idempotent, Self::Keyed, Self::NotRepeatable];

    /// The tool of this class that every instance offers.
    #[must_use]
    pub const fn tool(self) -> &'static str {
        match self {
            Self::ReadOnly => "read",
            Self::Idempotent => "put",
            Self::Keyed => "pay",
            Self::NotRepeatable => "append",
        }
    }

    /// The class of a tool.
    #[must_use]
    pub fn of_tool(tool: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.tool() == tool)
    }

    /// Whether the operator or the caller says that a call may be repeated.
    #[must_use]
    pub const fn is_repeatable(self) -> bool {
        !matches!(self, Self::NotRepeatable)
    }
}

/// What an instance does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// What it should.
    #[default]
    Good,
    /// Nothing: its listener is closed, its connections are reset, its sessions
    /// are forgotten.
    Refuse,
    /// Takes connections and reads nothing; what it had in flight it leaves unanswered.
    Hang,
    /// Takes requests, carries them out, and answers none.
    Mute,
    /// Carries requests out, and resets the connection after so many bytes of the response.
    Reset {
        /// How many bytes.
        after: usize,
    },
    /// Resets the connection after so many bytes of a request.
    Drop {
        /// How many bytes.
        after: usize,
    },
    /// Answers so much later.
    Slow {
        /// How much, in milliseconds.
        ms: u64,
    },
    /// Answers with what is no HTTP.
    Garbage,
    /// Answers HTTP 200 without MCP.
    Wedged,
    /// Answers with this status and nothing else.
    Status {
        /// The status.
        status: u16,
        /// The seconds of `Retry-After`, if any.
        retry_after: Option<u64>,
    },
    /// Answers with a body that does not end.
    Flood,
    /// Is good and refuses in turn.
    Flap {
        /// How long it is good, in milliseconds.
        up_ms: u64,
        /// How long it refuses, in milliseconds.
        down_ms: u64,
    },
}

/// From now on, an instance is to do this.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The number of the instance.
    pub instance: usize,
    /// What it is to do.
    pub behaviour: Behaviour,
}

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server has taken so many bytes of the request: it cannot execute it
    /// unless that is all of it.
    Request,
    /// The server has executed the call and written so many bytes of the response.
    Response,
    /// Nothing: the sizes are noted.
    Nothing,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With a reset; a child dies by SIGKILL.
    Reset,
    /// As if all was said; a child exits with 0.
    Close,
}

/// What becomes of the first attempt of a call: the argument `cut` of every tool,
/// as text of a fixed length such as `request:00017:reset`, so that it changes no
/// offset. Later attempts of the call, at whatever instance, are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// What is cut.
    pub side: Side,
    /// After how many bytes.
    pub after: usize,
    /// How.
    pub end: End,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Request => "request_",
            Side::Response => "response",
            Side::Nothing => "nothing_",
        };
        let end = if self.end == End::Reset { "reset" } else { "close" };
        write!(f, "{side}:{:05}:{end}", self.after)
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [side, after, end] = parts[..] else { return Err(format!("`{text}` is not side:bytes:end")) };
        let side = match side {
            "request_" => Side::Request,
            "response" => Side::Response,
            "nothing_" => Side::Nothing,
            other => return Err(format!("`{other}` is no side of a call")),
        };
        let end = match end {
            "reset" => End::Reset,
            "close" => End::Close,
            other => return Err(format!("`{other}` is no end of a connection")),
        };
        let after = after.parse().map_err(|_| format!("`{after}` is no number of bytes"))?;
        Ok(Self { side, after, end })
    }
}

/// How long a call and its response are on the wire, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The request, its head included.
    pub request: usize,
    /// The response, its head included.
    pub response: usize,
    /// Up to where the response must have come for the answer to be known.
    pub answer: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_reads_back_and_has_one_length() {
        let mut lengths = Vec::new();
        for side in [Side::Request, Side::Response, Side::Nothing] {
            for (after, end) in [(0, End::Reset), (17, End::Close), (99_999, End::Reset)] {
                let cut = Cut { side, after, end };
                lengths.push(cut.to_string().len());
                assert_eq!(cut.to_string().parse(), Ok(cut));
            }
        }
        lengths.dedup();
        assert_eq!(lengths.len(), 1);
        for wrong in ["", "request_:1", "request_:x:reset", "both____:1:reset", "request_:1:fall"] {
            assert!(wrong.parse::<Cut>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_class_has_a_tool_of_its_own() {
        for class in Class::ALL {
            assert_eq!(Class::of_tool(class.tool()), Some(class));
        }
        assert_eq!(Class::of_tool("no_such_tool"), None);
    }
}
