//! What the holder of a token may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The key of an operation in `/openapi.json` that says which role it needs.
pub const OPERATION_KEY: &str = "x-pba-role";

/// What the holder of a token may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Streams, and everything that only reads.
    Reader,
    /// Also searches, evaluations, comparisons and schedules.
    Researcher,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, in order.
    pub const ALL: [Role; 3] = [Role::Reader, Role::Researcher, Role::Admin];

    /// Its name in configurations and answers.
    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Researcher => "researcher",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no role's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleError(String);

impl fmt::Display for RoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = Role::ALL.map(Role::name).join(", ");
        write!(f, "{:?} is not a role; allowed are {allowed}", self.0)
    }
}

impl std::error::Error for RoleError {}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        let role = Role::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| RoleError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written_and_are_in_order() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("{:?}", role.name()));
        }
        assert!(Role::ALL.is_sorted());
        let error = "Admin".parse::<Role>().unwrap_err().to_string();
        assert_eq!(error, "\"Admin\" is not a role; allowed are reader, researcher, admin");
    }
}
