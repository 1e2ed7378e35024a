//! Connections that are open: how many there may be, in all and of one client, and until when one is.

use prometheus::IntGauge;

use crate::stream::client::Client;
use crate::stream::permits::{Permit, Permits, Refusal};
use crate::stream::queue::Owner;
use crate::sync::Arc;

/// All connections that there may be.
pub(crate) struct Connections {
    max: usize,
    per_client_max: usize,
    permits: Permits,
    active: IntGauge,
}

/// An open connection, which is counted until the last clone is dropped: by the task that serves it, its requests
/// and the stream that it was upgraded for.
#[derive(Clone)]
pub(crate) struct Connection {
    _open: Arc<Open>,
}

struct Open {
    _permit: Permit,
    active: IntGauge,
}

impl Connections {
    /// At most so many in all and of each client, whose number is shown by a gauge.
    pub(crate) fn new(max: usize, per_client_max: usize, active: IntGauge) -> Connections {
        Connections { max, per_client_max, permits: Permits::new(max, per_client_max), active }
    }

    /// Counts one more, if there is room for it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn open(&self, client: Client) -> Result<Connection, Refusal> {
        let permit = self.permits.take(Owner { client, stream: 0 })?;
        self.active.inc();
        Ok(Connection { _open: Arc::new(Open { _permit: permit, active: self.active.clone() }) })
    }

    /// What a refused client is told.
    pub(crate) fn explain(&self, refusal: Refusal) -> String {
        match refusal {
            Refusal::All => format!("all {} connections are taken; try again in a second", self.max),
            Refusal::OfClient => format!(
                "this client has {} connections, the most that one may have of {} (connections_max); try again in a \
                 second",
                self.per_client_max, self.max
            ),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_connection_is_open_until_all_that_use_it_have_ended() {
        let active = IntGauge::new("active", "Connections.").unwrap();
        let connections = Connections::new(3, 2, active.clone());
        let open = |number| connections.open(Client::at(Ipv4Addr::new(192, 0, 2, number).into()));
        let (served, other) = (open(1).unwrap(), open(1));
        let upgraded = served.clone();
        drop(served);
        assert_eq!(open(1).err(), Some(Refusal::OfClient));
        assert_eq!(active.get(), 2);
        let third = open(2);
        assert_eq!((third.is_ok(), open(2).err()), (true, Some(Refusal::All)));
        drop(upgraded);
        assert!(open(1).is_ok());
        drop((other, third));
        assert_eq!(active.get(), 0);
    }
}
