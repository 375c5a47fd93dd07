//! Where Machina may connect to on behalf of a service: the rule against being
//! led to the machine's own ports, to its network, or to the metadata of its
//! cloud (server-side request forgery). Pure: names are resolved, and sockets
//! opened, by connectors, who ask [`Reach`] about every address before they dial
//! it and about the peer of every socket. Refuses to judge by names what only
//! addresses tell.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Host;

use crate::error::{Error, Phase};

/// How many networks may be allowed.
const ALLOWED_MAX: usize = 1000;

/// Names under which clouds serve the secrets of a machine to that machine.
const METADATA_NAMES: [&str; 6] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
];

/// Which loopback and private networks services may be in that were registered
/// from outside; those declared inside may be in any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// The networks, such as `10.0.0.0/8`; at most 1000.
    #[serde(deserialize_with = "networks")]
    pub allow: Arc<[Network]>,
}

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Arc<[Network]>, D::Error> {
    let networks = Vec::<Network>::deserialize(deserializer)?;
    if networks.len() > ALLOWED_MAX {
        let count = networks.len();
        return Err(serde::de::Error::custom(format_args!("must have at most {ALLOWED_MAX} entries, has {count}")));
    }
    Ok(networks.into())
}

/// A range of addresses, such as `10.0.0.0/8` or `fd00::/8`; a lone address is a
/// range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                masked(u128::from(first.to_bits()) << 96, self.prefix)
                    == masked(u128::from(address.to_bits()) << 96, self.prefix)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => first.to_bits() == masked(address.to_bits(), self.prefix),
            _ => false,
        }
    }
}

/// The first `prefix` bits of `bits`.
fn masked(bits: u128, prefix: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let text: String = text.chars().take(80).collect();
            let text = text.escape_debug();
            Error::invalid(format!("`{text}` is no network; one is such as 10.0.0.0/8, fd00::/8 or 127.0.0.1"))
        };
        let (first, prefix) = text.split_once('/').map_or((text, None), |(first, prefix)| (first, Some(prefix)));
        let first: IpAddr = first.parse().map_err(|_| wrong())?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse::<u8>).ok().filter(|prefix| *prefix <= longest);
        let prefix = prefix.ok_or_else(wrong)?;
        let bits = match first {
            IpAddr::V4(first) => u128::from(first.to_bits()) << 96,
            IpAddr::V6(first) => first.to_bits(),
        };
        if masked(bits, prefix) != bits {
            return Err(Error::invalid(format!("`{first}/{prefix}` has bits after its prefix: they must be 0")));
        }
        Ok(Self { first, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: Error| error.message().to_owned())
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Where a connector may connect to for one instance.
///
/// # Behaviour
/// * Nobody is led to link-local, metadata, multicast, broadcast or unspecified
///   addresses, nor to those that carry another address inside (6to4, Teredo,
///   IPv4-compatible; NAT64, unless what it carries is public).
/// * An instance that was registered from outside is reached at loopback and
///   private addresses only as far as [`EgressConfig::allow`] lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// `None` for what was declared inside.
    allowed: Option<Arc<[Network]>>,
}

impl Reach {
    /// That of an instance which was declared inside the process.
    #[must_use]
    pub const fn inside() -> Self {
        Self { allowed: None }
    }

    /// That of an instance which was registered from outside.
    #[must_use]
    pub fn outside(config: &EgressConfig) -> Self {
        Self { allowed: Some(Arc::clone(&config.allow)) }
    }

    /// Whether it is that of an instance which was registered from outside.
    #[must_use]
    pub const fn is_outside(&self) -> bool {
        self.allowed.is_some()
    }

    /// Whether a socket may be opened to `address`, or be used that is.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: IpAddr) -> Result<(), Barred> {
        let address = address.to_canonical();
        match (zone(address), &self.allowed) {
            (Zone::Barred, _) => Err(Barred::Always),
            (Zone::Public, _) | (Zone::Local, None) => Ok(()),
            (Zone::Local, Some(allowed)) if allowed.iter().any(|network| network.contains(address)) => Ok(()),
            (Zone::Local, Some(_)) => Err(Barred::Outside),
        }
    }

    /// Whether the host of an address may be connected to, as far as it tells
    /// by itself; what a name leads to is still to be checked.
    ///
    /// # Errors
    /// Why not.
    pub fn check_host<S: AsRef<str>>(&self, host: &Host<S>) -> Result<(), Barred> {
        match host {
            Host::Ipv4(address) => self.check(IpAddr::V4(*address)),
            Host::Ipv6(address) => self.check(IpAddr::V6(*address)),
            Host::Domain(name) => {
                let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
                if METADATA_NAMES.contains(&name.as_str()) {
                    return Err(Barred::Always);
                }
                if name == "localhost" || name.ends_with(".localhost") {
                    let (four, six) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
                    return self.check(four).or_else(|_| self.check(six));
                }
                Ok(())
            }
        }
    }
}

/// Why an address may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// No service is ever reached there.
    Always,
    /// A service that was registered from outside is not reached there.
    Outside,
}

impl Barred {
    /// The error of a connection that was not opened for this reason: nothing was
    /// sent, and trying again does not help.
    #[must_use]
    pub fn into_error(self, field: &str) -> Error {
        let error = Error::unreachable(format!("{field}: {self}")).at(Phase::NotSent).caused_by(self);
        error.with(|context| context.hard = true)
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => {
                "leads to a link-local, metadata, multicast or unspecified address, and no service is reached there"
            }
            Self::Outside => {
                "leads to a loopback or private address, where services that are registered from outside are reached \
                 only if egress.allow lists the network, such as egress.allow = [\"127.0.0.0/8\", \"10.0.0.0/8\"]; or \
                 declare the service in a file that the server imports"
            }
        })
    }
}

impl std::error::Error for Barred {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Public,
    /// This machine, or a network that is not everyone's.
    Local,
    Barred,
}

fn zone(address: IpAddr) -> Zone {
    match address {
        IpAddr::V4(address) => zone_of_v4(address),
        IpAddr::V6(address) => zone_of_v6(address),
    }
}

fn zone_of_v4(address: Ipv4Addr) -> Zone {
    match address.octets() {
        // This network, link-local, multicast, broadcast; the metadata of some clouds.
        [0, ..] | [169, 254, ..] | [224..=239, ..] | [255, 255, 255, 255] => Zone::Barred,
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Zone::Barred,
        [127 | 10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Zone::Local,
        // For protocols, documentation, benchmarks and the future.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] => Zone::Local,
        [203, 0, 113, _] | [240..=255, ..] => Zone::Local,
        _ => Zone::Public,
    }
}

fn zone_of_v6(address: Ipv6Addr) -> Zone {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return zone_of_v4(mapped);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Zone::Local,
        // Unspecified and IPv4-compatible; translated.
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Zone::Barred,
        // NAT64: networks without IPv4 reach every server of the public one by it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let carried = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
            if zone_of_v4(carried) == Zone::Public { Zone::Public } else { Zone::Barred }
        }
        // NAT64 of a network's own, Teredo, 6to4.
        [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => Zone::Barred,
        // Link-local, multicast; the metadata of some clouds.
        [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => Zone::Barred,
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Zone::Barred,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Zone::Local,
        // Discarded; for documentation.
        [0x100, 0, 0, 0, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Zone::Local,
        _ => Zone::Public,
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
