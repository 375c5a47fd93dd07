use proptest::prelude::*;
use url::Url;

use super::*;
use crate::error::ErrorKind;

fn allowing(networks: &[&str]) -> Reach {
    let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
    Reach::outside(&EgressConfig { allow })
}

/// What becomes of an address, or a host, as a reader of URLs understands it.
fn judged(reach: &Reach, url: &str) -> Result<(), Barred> {
    let url = if url.contains("://") { Url::parse(url) } else { Url::parse(&format!("http://{url}")) }.unwrap();
    reach.check_host(&url.host().unwrap())
}

/// Every way to write 169.254.169.254, or to carry it inside another address.
const METADATA: [&str; 22] = [
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://025177524776/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://169.254.169.254./",
    "http://%31%36%39.254.169.254/",
    "http://１６９.２５４.169.254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "ws://2852039166/",
    "http://user@169.254.169.254:80/",
    "https://METADATA.google.internal./computeMetadata/v1/",
    "http://[fd00:ec2::254]/",
];

#[test]
fn metadata_is_out_of_reach_for_everyone_however_it_is_written() {
    let everything = allowing(&["0.0.0.0/0", "::/0"]);
    for url in METADATA {
        for reach in [Reach::inside(), everything.clone(), allowing(&[])] {
            assert_eq!(judged(&reach, url), Err(Barred::Always), "{url}");
        }
    }
}

#[test]
fn what_no_service_can_be_at_is_out_of_reach_for_everyone() {
    for url in [
        "http://0.0.0.0/",
        "http://0/",
        "http://0.1.2.3/",
        "http://[::]/",
        "http://[::2]/",
        "http://169.254.0.1/",
        "http://[fe80::1]/",
        "http://[febf::1]/",
        "http://224.0.0.1/",
        "http://239.255.255.255/",
        "http://255.255.255.255/",
        "http://[ff02::1]/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://[fd20:ce::254]/",
        "http://[::ffff:0.0.0.0]/",
        "http://[::ffff:0:7f00:1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b::10.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:1::1]/",
        "http://[::127.0.0.1]/",
    ] {
        assert_eq!(judged(&Reach::inside(), url), Err(Barred::Always), "{url}");
    }
}

const LOCAL: [&str; 22] = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://localhost:9/",
    "http://LOCALHOST./",
    "http://some.localhost/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "10.255.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fec0::1]/",
    "http://198.18.0.1/",
    "http://240.0.0.1/",
    "http://[2001:db8::1]/",
];

#[test]
fn this_machine_and_its_network_are_reached_from_inside_and_where_they_are_allowed() {
    for url in LOCAL {
        assert_eq!(judged(&Reach::inside(), url), Ok(()), "{url}");
        assert_eq!(judged(&allowing(&[]), url), Err(Barred::Outside), "{url}");
        assert_eq!(judged(&allowing(&["0.0.0.0/0", "::/0"]), url), Ok(()), "{url}");
    }
    let some = allowing(&["127.0.0.0/8", "10.1.0.0/16"]);
    for url in ["http://127.9.9.9/", "http://localhost/", "http://[::ffff:10.1.2.3]/"] {
        assert_eq!(judged(&some, url), Ok(()), "{url}");
    }
    for url in ["10.2.0.1", "http://[::1]/", "192.168.0.1"] {
        assert_eq!(judged(&some, url), Err(Barred::Outside), "{url}");
    }
}

#[test]
fn what_is_public_is_reached_by_everyone() {
    for url in [
        "http://1.1.1.1/",
        "http://172.15.0.1/",
        "http://172.32.0.1/",
        "http://100.63.0.1/",
        "http://100.128.0.1/",
        "http://192.0.1.1/",
        "http://[2606:4700::1]/",
        "http://[64:ff9b::1.1.1.1]/",
        "http://[::ffff:1.1.1.1]/",
        "https://example.com/",
        "https://metadata.example/",
        "https://notlocalhost/",
    ] {
        assert_eq!(judged(&allowing(&[]), url), Ok(()), "{url}");
    }
}

#[test]
fn the_error_says_what_would_allow_it_and_that_nothing_was_sent() {
    let error = Barred::Outside.into_error("http.url");
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
    assert!(error.context().hard && error.message().starts_with("http.url: leads to a loopback or private"), "{error}");
    assert!(error.message().contains("egress.allow = ["), "{error}");
    assert!(!Barred::Always.into_error("http.url").message().contains("egress.allow"));
}

#[test]
fn a_network_is_read_as_it_is_shown_and_a_wrong_one_says_why() {
    for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.1/32", "::1/128"] {
        assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
    }
    assert_eq!("192.168.1.7".parse::<Network>().unwrap().to_string(), "192.168.1.7/32");
    for text in ["", "10/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "localhost", "10.0.0.0/8/8"] {
        assert!(text.parse::<Network>().unwrap_err().message().contains("is no network"), "{text}");
    }
    let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
    assert!(error.message().contains("bits after its prefix"), "{error}");
    let config: EgressConfig = serde_json::from_str(r#"{"allow": ["10.0.0.0/8", "::1"]}"#).unwrap();
    assert_eq!(serde_json::to_string(&config).unwrap(), r#"{"allow":["10.0.0.0/8","::1/128"]}"#);
    let many = format!(r#"{{"allow": [{}"::1"]}}"#, r#""::1","#.repeat(ALLOWED_MAX));
    assert!(serde_json::from_str::<EgressConfig>(&many).unwrap_err().to_string().contains("at most 1000"));
}

proptest! {
    #[test]
    fn a_network_contains_exactly_what_shares_its_prefix(bits: u128, other: u128, prefix in 0u8..=128) {
        let first = masked(bits, prefix);
        let network = Network { first: IpAddr::V6(Ipv6Addr::from_bits(first)), prefix };
        let shares = prefix == 0 || (first ^ other) >> (128 - u32::from(prefix)) == 0;
        prop_assert_eq!(network.contains(IpAddr::V6(Ipv6Addr::from_bits(other))), shares);
        prop_assert!(network.contains(IpAddr::V6(Ipv6Addr::from_bits(bits))));
        prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
    }

    #[test]
    fn a_network_of_the_old_protocol_too(bits: u32, other: u32, prefix in 0u8..=32) {
        let first = bits.checked_shr(32 - u32::from(prefix)).map_or(0, |kept| kept << (32 - u32::from(prefix)));
        let network = Network { first: IpAddr::V4(Ipv4Addr::from_bits(first)), prefix };
        let shares = prefix == 0 || (first ^ other) >> (32 - u32::from(prefix)) == 0;
        prop_assert_eq!(network.contains(IpAddr::V4(Ipv4Addr::from_bits(other))), shares);
        prop_assert!(!network.contains(IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())));
    }

    /// However an address of the old protocol is carried in one of the new, it
    /// gives no more reach than it has by itself.
    #[test]
    fn nothing_is_gained_by_wrapping(bits: u32) {
        let inner = Ipv4Addr::from_bits(bits);
        let [high, low] = [(bits >> 16) as u16, (bits & 0xffff) as u16];
        let wrapped = [
            inner.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ];
        for reach in [Reach::inside(), allowing(&[]), allowing(&["10.0.0.0/8", "127.0.0.0/8"])] {
            if reach.check(inner.into()).is_err() {
                for address in wrapped {
                    // The last 32 bits of the new protocol's own loopback address.
                    prop_assume!(address != Ipv6Addr::LOCALHOST);
                    prop_assert!(reach.check(address.into()).is_err(), "{address}");
                }
            }
        }
    }
}
