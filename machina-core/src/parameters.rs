//! One declaration for each parameter that a service may set for itself and the
//! registry has a default of: its name, meaning, default and range. Out of it
//! come the policy in the record, the table in the configuration, and the values
//! that hold for one service.
//!
//! Refuses values: a parameter is a duration, a count or a word; anything richer
//! is a field that the policy has beside them.

use std::time::Duration;

use crate::error::Problem;

/// Durations in records are text such as `"30s"` or `"1m 30s"`.
pub(crate) use jiff::fmt::serde::unsigned_duration::friendly::compact::{optional, required};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Declares a policy, its defaults in the configuration, and what they come to
/// for one service. Each parameter is `name = default, least => most`.
macro_rules! parameters {
    (
        $(#[$policy_doc:meta])* policy $policy:ident in $policy_section:literal {
            $($(#[$extra_doc:meta])* $extra:ident: $extra_type:ty,)*
        }
        $(#[$config_doc:meta])* config $config:ident in $section:literal {
            $($(#[$only_doc:meta])* $only:ident: $only_type:ty = $only_default:expr,)*
        }
        $(#[$parameters_doc:meta])* parameters $parameters:ident;
        durations { $($(#[doc = $dd:literal])+ $d:ident = $d_default:expr, $d_least:expr => $d_most:expr;)* }
        counts { $($(#[doc = $cd:literal])+ $c:ident = $c_default:literal, $c_least:tt => $c_most:tt;)* }
        words { $($(#[doc = $wd:literal])+ $w:ident: $w_type:ty = $w_default:expr;)* }
    ) => {
        $(#[$policy_doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $policy {
            $(
                $(#[doc = $dd])+
                #[serde(with = "crate::parameters::optional", skip_serializing_if = "Option::is_none")]
                #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
                pub $d: Option<std::time::Duration>,
            )*
            $(
                $(#[doc = $cd])+
                #[serde(skip_serializing_if = "Option::is_none")]
                #[cfg_attr(feature = "openapi", schema(minimum = $c_least, maximum = $c_most))]
                pub $c: Option<u32>,
            )*
            $(
                $(#[doc = $wd])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $w: Option<$w_type>,
            )*
            $($(#[$extra_doc])* pub $extra: $extra_type,)*
        }

        impl $policy {
            /// Appends a problem for every parameter that is out of its range.
            fn check_ranges(&self, problems: &mut Vec<crate::error::Problem>) {
                $(crate::parameters::between(
                    concat!($policy_section, ".", stringify!($d)), self.$d, $d_least, $d_most, problems);)*
                $(crate::parameters::count(
                    concat!($policy_section, ".", stringify!($c)), self.$c, $c_least, $c_most, problems);)*
            }
        }

        $(#[$config_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $config {
            $($(#[doc = $dd])+ #[serde(with = "crate::parameters::required")] pub $d: std::time::Duration,)*
            $($(#[doc = $cd])+ pub $c: u32,)*
            $($(#[doc = $wd])+ pub $w: $w_type,)*
            $($(#[$only_doc])* pub $only: $only_type,)*
        }

        impl Default for $config {
            fn default() -> Self {
                Self {
                    $($d: $d_default,)*
                    $($c: $c_default,)*
                    $($w: $w_default,)*
                    $($only: $only_default,)*
                }
            }
        }

        impl $config {
            /// What each setting of this table is that a service may set for itself: its
            /// path, and a sentence.
            pub const SETTINGS: &'static [(&'static str, &'static str)] = &[
                $((concat!($section, ".", stringify!($d)), concat!($($dd),+)),)*
                $((concat!($section, ".", stringify!($c)), concat!($($cd),+)),)*
                $((concat!($section, ".", stringify!($w)), concat!($($wd),+)),)*
            ];

            /// Appends a problem for every parameter that is out of its range.
            fn check_ranges(&self, problems: &mut Vec<crate::error::Problem>) {
                $(crate::parameters::between(
                    concat!($section, ".", stringify!($d)), Some(self.$d), $d_least, $d_most, problems);)*
                $(crate::parameters::count(
                    concat!($section, ".", stringify!($c)), Some(self.$c), $c_least, $c_most, problems);)*
            }

            /// What holds for a service with this policy.
            #[must_use]
            pub fn under(&self, policy: &$policy) -> $parameters {
                $parameters {
                    $($d: policy.$d.unwrap_or(self.$d),)*
                    $($c: policy.$c.unwrap_or(self.$c),)*
                    $($w: policy.$w.unwrap_or(self.$w),)*
                }
            }
        }

        $(#[$parameters_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $parameters {
            $($(#[doc = $dd])+ pub $d: std::time::Duration,)*
            $($(#[doc = $cd])+ pub $c: u32,)*
            $($(#[doc = $wd])+ pub $w: $w_type,)*
        }

        impl Default for $parameters {
            fn default() -> Self {
                $config::default().under(&$policy::default())
            }
        }
    };
}
pub(crate) use parameters;

/// Appends a problem unless `value` lies between `least` and `most`.
pub(crate) fn between(
    field: &str,
    value: Option<Duration>,
    least: Duration,
    most: Duration,
    problems: &mut Vec<Problem>,
) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        let detail = format!("must be {least:?} to {most:?}, is {value:?}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}

/// Appends a problem unless `value` is `least` to `most`.
pub(crate) fn count(field: &str, value: Option<u32>, least: u32, most: u32, problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        problems.push(Problem { field: field.to_owned(), detail: format!("must be {least} to {most}, is {value}") });
    }
}
