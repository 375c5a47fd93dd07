//! Descriptions of types whose words are made by a macro, for OpenAPI documents:
//! a derive cannot see what they are called in JSON.

use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{AccessLevel, BuildPriority, BuildType, Origin};

macro_rules! described {
    ($($name:ident: $what:literal,)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = Self::ALL.iter().map(|word| word.as_str());
                ObjectBuilder::new().schema_type(Type::String).description(Some($what)).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

described! {
    BuildType: "How a service is built.",
    Origin: "Where a service comes from.",
    BuildPriority: "How urgently a service is to be built and repaired.",
    AccessLevel: "Who may see and manage a service, from the most to the least privileged.",
}
