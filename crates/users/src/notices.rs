//! The account by which the server speaks to its users.
//!
//! Specification: client-server API, "Server Notices".

use exeunt_core::ruma::OwnedUserId;

use crate::{NewAccount, Users, UsersError};

impl Users {
    /// The account with that name, in which nobody can log in; made if need be, so that the name
    /// is taken. `UserInUse` if a person has it.
    pub async fn notice_account(
        &self,
        localpart: &str,
        displayname: &str,
    ) -> Result<OwnedUserId, UsersError> {
        let (localpart, displayname) = (Some(localpart), Some(displayname));
        let new = NewAccount { localpart, displayname, ..NewAccount::default() };
        let user = match self.register(new).await {
            // By an earlier notice, or by one of this moment.
            Err(UsersError::UserInUse(user)) => user,
            made => return made,
        };
        match self.account(&user).await? {
            Some(account) if account.has_password || account.deactivated => {
                Err(UsersError::UserInUse(user))
            }
            _ => Ok(user),
        }
    }
}
